import pytest
import torch
from counting import counts
from torch.testing import assert_close

import oracles
from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.imagenet_resnet import ImageNetResNet

PHOTO = (1, 3, 224, 224)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_every_weight_of_torchvisions_networks_has_its_place(depth: int) -> None:
    with torch.device("meta"):
        theirs = getattr(oracles.torchvision().models, f"resnet{depth}")()
        ours = create_model(f"resnet{depth}")
    ours.load_state_dict(theirs.state_dict(), assign=True)


@pytest.mark.parametrize("depth", [18, 50])
def test_outputs_are_torchvisions(depth: int) -> None:
    """18 has basic blocks, 50 bottlenecks; odd sizes show where strides and paddings stand."""
    theirs = getattr(oracles.torchvision().models, f"resnet{depth}")(num_classes=7).eval()
    ours = create_model(f"resnet{depth}", num_classes=7).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 75, 66)
    assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_initial_weights_have_torchvisions_spread() -> None:
    theirs = dict(oracles.torchvision().models.resnet18().named_parameters())
    ours = dict(create_model("resnet18").named_parameters())
    for key, their_key in (("stem.0.weight", "conv1.weight"), ("stages.2.0.conv1.weight", "layer3.0.conv1.weight")):
        assert_close(ours[key].std(), theirs[their_key].std(), rtol=0.05, atol=0)


def test_counts_of_the_depth_beside_the_golden_ones() -> None:
    """Calculated from torchvision's network."""
    assert counts("resnet34", PHOTO) == (21_797_672, 3_663_761_408)


@pytest.mark.parametrize(
    ("name", "classes", "params", "macs"),
    [
        ("resnet18", 10, 11_173_962, 555_422_720),
        ("resnet18", 100, 11_220_132, 555_468_800),
        ("resnet34", 10, 21_282_122, 1_159_402_496),
        ("resnet50", 10, 23_520_842, 1_297_829_888),
    ],
)
def test_counts_with_the_small_stem(name: str, classes: int, params: int, macs: int) -> None:
    """Calculated from kuangliu/pytorch-cifar, whose networks these are."""
    assert counts(name, (1, 3, 32, 32), stem="cifar", num_classes=classes) == (params, macs)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UserError, match=r"`depth` must be one of 18, 34, 50, 101, 152, got 20"):
        ImageNetResNet(20)
    with pytest.raises(UserError, match=r"`stem` must be 'imagenet' or 'cifar', got 'small'"):
        create_model("resnet18", stem="small")
