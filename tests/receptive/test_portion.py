"""The tables of the 3-D receptive field, to three digits."""

import pytest
from torch import nn

from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.ops import RollingPointwise2d
from leanconv.receptive import kernel_rule, portion, receptive_field, saturating_kernels, stacked_portion

#: Portion after each 3x3 kernel of VGG16 on 32-pixel images, and the number at which a stage is saturated.
VGG16 = {
    32: ([0.009, 0.024], 16),
    16: ([0.035, 0.098], 8),
    8: ([0.141, 0.391, 0.766], 4),
    4: ([0.562, 1, 1], 2),
    2: ([1, 1, 1], 1),
}
STANDARD = nn.Conv2d(64, 64, 3, padding=1)
DW, PW = nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 64, 1)
GPW, RPW = nn.Conv2d(64, 64, 1, groups=4), RollingPointwise2d(64, 64, 4, 0.5)
#: Portion of one and of two blocks on 64 channels of 16x16 samples.
BLOCKS = {
    "standard": ([STANDARD], 0.0352, 0.0977),
    "DW+PW": ([DW, PW], 0.0352, 0.0977),
    "DW": ([DW], 0.0005, 0.0015),
    "PW": ([PW], 0.0039, 0.0039),
    "DW+GPW": ([DW, GPW], 0.0088, 0.0244),
    "DW+RPW": ([DW, RPW], 0.0088, 0.0977),
}
SIZE = (1, 64, 16, 16)


@pytest.mark.parametrize("side", VGG16)
def test_the_vgg16_table_by_formula(side: int) -> None:
    printed, saturated = VGG16[side]
    found = [round(stacked_portion(kernels, (side, side)), 3) for kernels in range(1, len(printed) + 1)]
    assert found == printed
    assert saturating_kernels((side, side)) == saturated
    assert stacked_portion(saturated, (side, side)) == 1
    assert saturated == 1 or stacked_portion(saturated - 1, (side, side)) < 1


def test_the_vgg16_table_on_the_network() -> None:
    stages = receptive_field(create_model("vgg16", stem="cifar", base_width=4)).stages
    for stage, (side, (printed, _)) in zip(stages, VGG16.items(), strict=True):
        assert stage.resolution == (side, side)
        # The pooling that begins a stage is a layer of its own and not among the paper's kernels.
        kernels = stage.kernels[len(stage.kernels) - len(printed) :]
        assert [round(kernel.portion, 3) for kernel in kernels] == printed


@pytest.mark.parametrize("name", BLOCKS)
def test_the_block_table(name: str) -> None:
    components, one, two = BLOCKS[name]
    assert round(portion(nn.Sequential(*components), SIZE), 4) == one
    assert round(portion(nn.Sequential(*components, *components), SIZE), 4) == two


def test_the_kernel_rule() -> None:
    assert kernel_rule([DW, PW], STANDARD, SIZE).may_replace
    for blocks in (1, 2, 3):
        assert not kernel_rule([DW, GPW], STANDARD, SIZE, blocks=blocks).keeps_quality
    assert not kernel_rule([DW, RPW], STANDARD, SIZE).keeps_quality
    assert kernel_rule([DW, RPW], STANDARD, SIZE, blocks=2).may_replace
    redundant = kernel_rule([DW, PW, PW], STANDARD, SIZE)
    assert redundant.keeps_quality
    assert not redundant.is_compact


def test_eight_groups_take_three_rolling_blocks() -> None:
    rolling = RollingPointwise2d(64, 64, 8, 0.5)
    assert not kernel_rule([DW, rolling], STANDARD, SIZE, blocks=2).keeps_quality
    assert kernel_rule([DW, rolling], STANDARD, SIZE, blocks=3).may_replace


def test_a_rule_without_components_is_refused() -> None:
    with pytest.raises(UserError, match="`components`"):
        kernel_rule([], STANDARD, SIZE)
    with pytest.raises(UserError, match="one image or one vector"):
        portion(nn.Flatten(2), SIZE)
