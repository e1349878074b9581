from functools import partial

import pytest
import torch
from counting import counts
from torch.testing import assert_close

import oracles
from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.imagenet_resnet import layout
from leanconv.models.resnet import ResNet
from leanconv.ops import ECA, UnsharedECA

PHOTO = (1, 3, 224, 224)


def kernels(model: torch.nn.Module) -> list[int]:
    return [module.conv.kernel_size[0] for module in model.modules() if isinstance(module, ECA)]


@pytest.mark.parametrize(
    ("depth", "kernel_size", "params", "macs"),
    [
        (34, (3, 3, 5, 7), 21_797_744, 3_663_781_952),
        (152, (3, 3, 5, 7), 60_193_042, 11_513_868_544),
        (18, 3, 11_689_536, 1_814_079_104),
        (34, 3, 21_797_720, 3_663_772_736),
        (50, 3, 25_557_080, 4_089_229_568),
        (101, 3, 44_549_259, 7_801_502_976),
        (152, 3, 60_192_958, 11_513_770_240),
    ],
)
def test_counts_beside_the_golden_ones(depth: int, kernel_size: int | tuple, params: int, macs: int) -> None:
    """Calculated from the authors' code with the kernel sizes of the released weights, and with three taps."""
    assert counts(f"eca_resnet{depth}", PHOTO, kernel_size=kernel_size) == (params, macs)


@pytest.mark.parametrize(("depth", "params"), [(18, 11_689_548), (50, 25_557_118)])
def test_adaptive_counts_are_timms(depth: int, params: int) -> None:
    assert counts(f"eca_resnet{depth}", PHOTO, kernel_size="adaptive")[0] == params


@pytest.mark.parametrize(
    ("depth", "released"),
    [(18, [3, 5, 7, 7]), (34, [3, 3, 5, 7]), (50, [3, 5, 5, 7]), (101, [3, 3, 5, 7]), (152, [3, 3, 5, 7])],
)
def test_registered_kernels_are_the_released_ones(depth: int, released: list[int]) -> None:
    with torch.device("meta"):
        model = create_model(f"eca_resnet{depth}")
    assert [set(kernels(stage)) for stage in model.stages] == [{k} for k in released]


def test_taps_that_are_not_shared_cost_resnet50_45312_parameters() -> None:
    block, depths = layout(50)
    with torch.device("meta"):
        plain, unshared = (
            ResNet(chosen, depths, base_width=64) for chosen in (block, partial(block, attention=UnsharedECA))
        )
    sizes = [sum(p.numel() for p in model.parameters()) for model in (plain, unshared)]
    assert sizes[1] - sizes[0] == 45_312


@pytest.mark.parametrize("depth", [18, 50])
def test_outputs_are_timms(depth: int) -> None:
    """timm puts the attention of adaptive size where the authors do; its weights load under its names."""
    theirs = oracles.timm().create_model(f"resnet{depth}", num_classes=7, block_args={"attn_layer": "eca"}).eval()
    ours = create_model(f"eca_resnet{depth}", num_classes=7, kernel_size="adaptive").eval()
    state = theirs.state_dict()
    assert any(".se." in key for key in state)
    ours.load_state_dict(state)
    x = torch.randn(2, 3, 75, 66)
    assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_attention_of_mobilenet_v2_scales_what_each_block_writes() -> None:
    model = create_model("eca_mobilenet_v2", width_multiplier=0.1).eval()
    assert kernels(model) == [1] * 10 + [3] * 7
    block = model.stages[4][3]
    assert not block.adds
    x = torch.randn(2, 16, 5, 5)
    projected = block.project(block.depthwise(block.expand(x)))
    scores = block.attention.conv(projected.mean((2, 3)).unsqueeze(1)).squeeze(1)
    assert_close(block(x), projected * scores.sigmoid()[..., None, None])


@pytest.mark.parametrize("name", ["eca_resnet18", "eca_mobilenet_v2"])
def test_wrong_kernels_are_answered_with_what_would_work(name: str) -> None:
    for kernel_size, sentence in (
        (4, "got 4; 5 would work"),
        ((3, 5), r"one a stage.* got \(3, 5\); 3 would work"),
        ("adaptif", "got 'adaptif'; 3 would work"),
        (2.5, "got 2.5; 3 would work"),
    ):
        with pytest.raises(UserError, match=f"`kernel_size` .*{sentence}"), torch.device("meta"):
            create_model(name, kernel_size=kernel_size)
    with pytest.raises(UserError, match="got 6; 7 would work"), torch.device("meta"):
        create_model("eca_resnet18", kernel_size=[3, 5, 6, 7])
