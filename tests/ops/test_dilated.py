from functools import partial

import pytest
import torch
from sizes import sizes
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import ContextModule, DilatedConv2d
from leanconv.ops.context import LARGE
from leanconv.ops.dilated import identity_

CITYSCAPES = (1, 1, 2, 4, 8, 16, 32, 64, 1)


def test_any_convolution_is_one() -> None:
    conv = nn.Conv2d(4, 6, 3, 2, 4, dilation=3, groups=2, padding_mode="reflect")
    x = torch.randn(2, 4, 13, 12)
    assert torch.equal(DilatedConv2d.from_dense(conv)(x), conv(x))


@pytest.mark.parametrize(("dilation", "kernel", "extent"), [(2, 3, 5), (4, 3, 9), (3, 5, 13)])
def test_extent_grows_with_the_dilation_and_the_size_stays(dilation: int, kernel: int, extent: int) -> None:
    operator = DilatedConv2d(1, 1, kernel, dilation=dilation)
    assert operator.geometry.extent == (extent, extent)
    assert operator(torch.randn(1, 1, 17, 18)).shape == (1, 1, 17, 18)


def test_dilation_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="`dilation` must be one integer or 2 of them, each at least 1, got 0"):
        DilatedConv2d(4, 4, dilation=0)
    with pytest.raises(UserError, match=r"`dilations` must be .* got \(1, 2, 0\)"):
        ContextModule(4, dilations=(1, 2, 0))
    with pytest.raises(UserError, match=r"`kernel_size`, got \(4, 4\); \(5, 5\) would work"):
        DilatedConv2d(4, 4, 4, stride=2, dilation=1)


@pytest.mark.parametrize(("multipliers", "noise"), [(None, 0.0), (LARGE, 0.0)])
def test_context_module_starts_as_the_identity(multipliers: tuple[int, ...] | None, noise: float) -> None:
    x = torch.rand(1, 3, 20, 20)
    assert_close(ContextModule(3, multipliers=multipliers, noise=noise)(x), x)


def test_noise_is_relative_to_the_scale_and_leaves_the_identity_alone() -> None:
    weight = identity_(torch.empty(64, 32, 3, 3), classes=8)
    middle = weight[:, :, 1, 1]
    assert (middle == 8 / 64).sum() == 8 * 8 * 4
    rest = torch.cat([middle[middle != 8 / 64], weight.flatten(2)[..., [0, 8]].flatten()])
    assert_close(rest.std(), torch.tensor(0.01 * 8 / 64), rtol=0.1, atol=0)
    with pytest.raises(UserError, match="odd"):
        identity_(torch.empty(4, 4, 2, 2), classes=4)


@pytest.mark.parametrize(("layers", "field"), [(2, 5), (3, 9), (4, 17), (5, 33), (6, 65), (7, 67)])
def test_receptive_fields_are_those_of_table_1(layers: int, field: int) -> None:
    module = ContextModule(1, dilations=(1, 1, 2, 4, 8, 16, 1)[:layers])
    for parameter in module.parameters():
        nn.init.constant_(parameter, 1.0)
    x = torch.ones(1, 1, 71, 71, requires_grad=True)
    (seen,) = torch.autograd.grad(module(x)[0, 0, 35, 35], x)
    rows = seen[0, 0].abs().sum(1).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == field


@pytest.mark.parametrize(
    ("channels", "multipliers", "params", "macs"),
    [
        (19, None, 23_256, 94_633_984),
        (21, None, 28_392, 115_605_504),
        (19, LARGE, 5_569_185, 22_803_832_832),
        (21, LARGE, 6_803_139, 27_857_313_792),
    ],
)
def test_sizes_at_64_pixels(channels: int, multipliers: tuple[int, ...] | None, params: int, macs: int) -> None:
    """Counted from the release's layer definitions (fyu/dilation)."""
    build = partial(ContextModule, channels, multipliers=multipliers)
    assert sizes(build, 1, channels, 64, 64) == (params, macs)


def test_unpadded_form_loses_twice_the_dilations_and_the_longer_one_sees_more() -> None:
    assert ContextModule(2, padding="valid")(torch.randn(1, 2, 70, 68)).shape == (1, 2, 4, 2)
    assert len(ContextModule(2, dilations=CITYSCAPES).layers) == 2 * 9 + 1
    with pytest.raises(UserError, match="`multipliers` must be one for each of the 9 dilations, got 7"):
        ContextModule(2, dilations=CITYSCAPES, multipliers=LARGE)
    with pytest.raises(UserError, match="padding"):
        ContextModule(2, padding="full")
