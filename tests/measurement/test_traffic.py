"""Bytes moved, against sums of tensor sizes done by hand (float32: four bytes an element)."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.measurement import bytes_moved
from leanconv.measurement.traffic import TrafficMode


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


SIZE = (2, 4, 6, 8)
N = 2 * 4 * 6 * 8


def _assign(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    y[:, 1:] = x[:, 1:]
    return y


@pytest.mark.parametrize(
    ("function", "elements"),
    [
        (lambda x: x + 1, 2 * N),
        (lambda x: x + x, 2 * N),
        (lambda x: x + x.flip(1), 2 * N + 3 * N),
        (lambda x: x.add_(1), 2 * N),
        (lambda x: F.relu(x, inplace=True), 2 * N),
        (lambda x: x.add_(x[:, :, :1]), 2 * N + N // 6),
        (lambda x: x + x.mean((2, 3), keepdim=True), N + 8 + 2 * N + 8),
        (lambda x: x.view(2, -1).unsqueeze(1).transpose(0, 1)[0].chunk(2), 0),
        (lambda x: x.permute(0, 2, 3, 1), 0),
        (lambda x: x.permute(0, 2, 3, 1).contiguous(), 2 * N),
        (lambda x: x.permute(0, 2, 3, 1).reshape(-1, 4), 2 * N),
        (lambda x: x[:1].expand(5, 4, 6, 8).sum(), N // 2 + 1),
        (lambda x: torch.cat([x, x[:, :1]], 1), 2 * (N + N // 4)),
        (_assign, 2 * (N - N // 4)),
        (lambda x: x.zero_(), N),
        (lambda x: torch.add(x, 1, out=torch.empty_like(x)), 2 * N),
        (lambda x: F.pad(x, (1, 1)), N + N // 8 * 10),
        # The maximum and its int64 index are both written.
        (lambda x: F.max_pool2d(x, 2), N + N // 4 + 2 * (N // 4)),
        # 3 of the 100 rows are read: 3 int64 indices, 3 x 5 values read and as many written.
        (lambda x: torch.ones(100, 5)[torch.zeros(3, dtype=torch.long)], 500 + 6 + 6 + 15 + 15),
    ],
)
def test_operators(function: Callable[[Tensor], object], elements: int) -> None:
    assert bytes_moved(Apply(function), SIZE) == 4 * elements


def test_dtype_decides_the_bytes() -> None:
    assert bytes_moved(Apply(torch.relu), example=torch.zeros(SIZE, dtype=torch.float16)) == 2 * 2 * N
    # Converting reads four bytes and writes two.
    assert bytes_moved(Apply(Tensor.half), SIZE) == 6 * N


def test_convolution_reads_input_weight_and_bias_and_writes_its_output() -> None:
    conv = nn.Conv2d(4, 5, 3, padding=1)
    assert bytes_moved(conv, SIZE) == 4 * (N + 5 * 4 * 9 + 5 + N // 4 * 5)


def test_batch_norm_reads_four_vectors() -> None:
    assert bytes_moved(nn.BatchNorm2d(4), SIZE) == 4 * (N + 4 * 4 + N)


def test_real_tensors_move_as_many_bytes_as_those_without_data() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.ChannelShuffle(2),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.GroupNorm(2, 8),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()
    x = torch.zeros(SIZE)
    with torch.no_grad(), TrafficMode() as traffic:
        network(x)
    assert bytes_moved(network, SIZE) == traffic.total
