import pytest
import torch
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import DepthwiseSeparableConv2d


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
