from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import DepthwiseSeparableConv1d, DepthwiseSeparableConv2d, DepthwiseSeparableConv3d
from leanconv.ops.separable import DepthwiseSeparableConv


def test_full_rank_fit_is_exact() -> None:
    conv = nn.Conv2d(6, 8, 3, 2, 1, groups=2, padding_mode="reflect", dtype=torch.float64)
    fitted = DepthwiseSeparableConv2d.from_dense(conv)
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    assert fitted.depth_multiplier == 4  # outputs a group, fewer than the nine taps
    assert_close(fitted(x), conv(x), rtol=1e-10, atol=1e-10)


def test_rank_one_error_is_that_of_each_channels_other_singular_values() -> None:
    conv = nn.Conv2d(3, 10, 3, bias=False, dtype=torch.float64)
    fitted = DepthwiseSeparableConv2d.from_dense(conv, depth_multiplier=1)
    expected = torch.linalg.svdvals(conv.weight.transpose(0, 1).flatten(2))[:, 1:].square().sum().sqrt()
    assert_close((fitted.dense().weight - conv.weight).norm(), expected, rtol=1e-9, atol=0)


def test_multiplier_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="depth_multiplier"):
        DepthwiseSeparableConv2d(4, 4, 3, depth_multiplier=0)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("cls", [DepthwiseSeparableConv1d, DepthwiseSeparableConv2d, DepthwiseSeparableConv3d])
def test_training_by_the_composed_kernel_gives_the_factored_outputs_and_gradients(
    cls: type[DepthwiseSeparableConv], groups: int
) -> None:
    operator = cls(4, 6, 3, 2, 1, 1, groups, depth_multiplier=3, dtype=torch.float64)
    x = torch.randn(2, 4, *[7] * operator.dims, dtype=torch.float64, requires_grad=True)
    calls: list[nn.Module] = []
    operator.depthwise.register_forward_hook(lambda *_: calls.append(operator.depthwise))
    found = []
    for training in (True, False):
        y = operator.train(training)(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), [x, *operator.parameters()])))
    assert len(calls) == 1  # only evaluation filters channel by channel
    for composed, factored in zip(*found, strict=True):
        assert_close(composed, factored, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("change", [{"depth_multiplier": 1}, {"padding_mode": "reflect"}, {"in_channels": 128}])
def test_only_what_gains_is_trained_composed(change: dict[str, object]) -> None:
    arguments: dict[str, Any] = {"in_channels": 4, "padding": 1, "depth_multiplier": 2} | change
    operator = DepthwiseSeparableConv2d(out_channels=6, kernel_size=3, **arguments)
    calls: list[nn.Module] = []
    operator.depthwise.register_forward_hook(lambda *_: calls.append(operator))
    operator(torch.randn(1, operator.in_channels, 5, 5))
    assert calls
