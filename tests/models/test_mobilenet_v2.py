import re

import pytest
import torch
from counting import counts
from torch.testing import assert_close

import oracles
from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.mobilenet_v2 import InvertedResidual, MobileNetV2, scaled_channels

#: Blocks of each stage here; torchvision counts blocks through.
DEPTHS = (1, 2, 3, 7, 4)
PLACES = [f"stages.{stage}.{index}" for stage, depth in enumerate(DEPTHS) for index in range(depth)]


def our_key(key: str) -> str:
    """Translate a name of torchvision's state dict."""
    if match := re.match(r"features\.(\d+)\.(.*)", key):
        index, rest = int(match[1]), match[2]
        if index == 0:
            return f"stem.{rest}"
        if index == 18:
            return f"head.0.{rest}"
        parts = ["depthwise", "project.0", "project.1"]
        parts = ["expand", *parts] if index > 1 else parts
        _, part, tail = rest.split(".", 2)
        return f"{PLACES[index - 1]}.{parts[int(part)]}.{tail}"
    return key.replace("classifier.1.", "head.1.fc.")


@pytest.mark.parametrize("width", [0.35, 1.0])
def test_outputs_are_torchvisions(width: float) -> None:
    theirs = oracles.torchvision().models.mobilenet_v2(num_classes=7, width_mult=width).eval()
    ours = create_model("mobilenet_v2_100", num_classes=7, width_multiplier=width).eval()
    ours.load_state_dict({our_key(key): value for key, value in theirs.state_dict().items()})
    x = torch.randn(2, 3, 75, 66)
    assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_initial_weights_have_torchvisions_spread() -> None:
    theirs = {our_key(key): p for key, p in oracles.torchvision().models.mobilenet_v2().named_parameters()}
    ours = dict(create_model("mobilenet_v2_100").named_parameters())
    for key in ("stages.3.5.expand.0.weight", "stages.4.2.depthwise.0.weight", "head.1.fc.weight"):
        assert_close(ours[key].std(), theirs[key].std(), rtol=0.05, atol=0)
    assert ours["head.1.fc.bias"].abs().sum() == 0


@pytest.mark.parametrize(("width", "params", "macs"), [(0.75, 2_636_424, 209_069_792), (1.3, 5_386_792, 509_374_560)])
def test_counts_beside_the_golden_ones(width: float, params: int, macs: int) -> None:
    """Calculated from torchvision's network."""
    assert counts("mobilenet_v2_075", (1, 3, 224, 224), width_multiplier=width) == (params, macs)


def test_the_name_means_its_width() -> None:
    assert counts("mobilenet_v2_075", (1, 3, 224, 224))[0] == 2_636_424


def test_counts_with_the_small_stem() -> None:
    """Our reading of the network ANTNets are compared with on CIFAR-100 (arXiv 1904.03775)."""
    assert counts("mobilenet_v2_100", (1, 3, 32, 32), stem="cifar", num_classes=100) == (2_351_972, 88_091_648)


def test_stages_are_the_resolutions() -> None:
    with torch.device("meta"):
        maps = create_model("mobilenet_v2_100", features_only=True)(torch.empty(2, 3, 224, 224))
    assert [feature.shape[1:3] for feature in maps] == [(16, 112), (24, 56), (32, 28), (96, 14), (320, 7)]


def test_channels_are_rounded_like_torchvisions() -> None:
    oracles.torchvision()
    from torchvision.models._utils import _make_divisible

    for channels in (16, 24, 32, 64, 96, 160, 320, 1280):
        for percent in range(1, 300, 7):
            assert scaled_channels(channels, percent / 100) == _make_divisible(channels * percent / 100, 8)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"width_multiplier": -1}, "`width_multiplier` .* got -1; 1 would work"),
        ({"width_multiplier": 140}, "`width_multiplier` .* got 140; 1.4 would work"),
        ({"stem": "tiny"}, "`stem`"),
        ({"dropout": 1.5}, "`dropout`"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        MobileNetV2(**kwargs)


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(UserError, match="`groups` must divide `out_channels` = 20, got 3"):
        InvertedResidual(16, 20, groups=3)
