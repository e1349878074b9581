"""Parameters and multiply-accumulates against counts done by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.measurement import count_macs, count_params


class FunctionalConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.rand(8, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1)


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.rand(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,dc->ndhw", x, self.matrix)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


class Branching(nn.Module):
    """Control flow that depends on data: it needs numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if bool((x > -1e9).all()) else x


@pytest.mark.parametrize(
    ("module", "size", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 5, 7), 8 * 3 * 9 * 35),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (1, 3, 5, 7), 8 * 3 * 9 * 12),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (1, 8, 5, 7), 8 * 9 * 35),
        (nn.Conv2d(8, 4, 3, padding=2, dilation=2, groups=2), (1, 8, 5, 7), 4 * 4 * 9 * 35),
        (nn.Conv1d(3, 8, 5), (2, 3, 9), 2 * 8 * 3 * 5 * 5),
        (nn.Conv3d(2, 3, (1, 2, 3)), (1, 2, 4, 4, 4), 3 * 2 * 6 * 4 * 3 * 2),
        # A transposed convolution spreads every input sample over one kernel.
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (1, 4, 5, 5), 4 * 6 * 9 * 25),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (1, 4, 5, 5), 4 * 3 * 9 * 25),
        (nn.Linear(6, 4), (5, 6), 5 * 6 * 4),
        (nn.Linear(6, 4), (5, 7, 6), 35 * 6 * 4),
        (FunctionalConv(), (1, 3, 5, 7), 8 * 3 * 9 * 35),
        (Einsum(), (1, 3, 5, 7), 8 * 3 * 35),
        (Twice(), (1, 3, 5, 7), 2 * 3 * 3 * 9 * 35),
        (Attention(), (1, 2, 8, 4), 2 * (8 * 8 * 4) * 2),
        (Branching(), (1, 3, 5, 7), 8 * 3 * 35),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Dropout()), (1, 3, 4, 4), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_macs(module: nn.Module, size: tuple[int, ...], macs: int) -> None:
    assert count_macs(module, size) == macs


def test_attention_modules_count_also_where_pytorch_has_one_fused_operator() -> None:
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    x = torch.rand(1, 8, 16)
    # Three projections and one of the output; two products of 8 x 8 scores with 16 channels.
    assert count_macs(attention, example=[x, x, x]) == 4 * 8 * 16 * 16 + 2 * 8 * 8 * 16


def test_attention_counts_in_a_pass_on_real_data() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            assert x.sum().item() > -1e9
            return F.scaled_dot_product_attention(self.attention(x, x, x, need_weights=False)[0], x, x)

    assert count_macs(Both(), (1, 8, 16)) == 4 * 8 * 16 * 16 + 2 * 2 * 8 * 8 * 16


def test_a_network_far_too_large_to_run_is_counted() -> None:
    network = nn.Sequential(nn.Conv2d(3, 1024, 1), nn.Conv2d(1024, 1024, 3, padding=1))
    assert count_macs(network, (1, 3, 2048, 2048)) == 2048**2 * (3 * 1024 + 9 * 1024**2)


def test_counting_ignores_inference_mode_around_it() -> None:
    with torch.inference_mode():
        assert count_macs(nn.Linear(6, 4), (5, 6)) == 120


def test_compiled_network_counts_as_the_one_it_was_made_from() -> None:
    network = torch.compile(nn.Sequential(nn.Conv2d(3, 8, 1)), backend="eager")
    assert count_macs(network, (1, 3, 5, 7)) == 8 * 3 * 35
    assert count_params(network) == 8 * 3 + 8


def test_params() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    own = (8 * 27 + 8) + 2 * 8 + (16 + 4) + 16
    assert count_params(network) == own
    network[0].weight.requires_grad_(False)
    assert count_params(network) == own
    network[3].weight = network[2].weight
    assert count_params(network) == own - 16


def test_lazy_layers_must_have_seen_an_input() -> None:
    network = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(UserError, match=r"lazy parameter '0\.weight'"):
        count_macs(network, (1, 3))
