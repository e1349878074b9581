import re

import pytest
import torch
from counting import counts
from torch.testing import assert_close

import oracles
from leanconv.errors import UserError
from leanconv.models import create_model


@pytest.mark.parametrize(("size", "macs"), [(299, 8_357_403_496), (224, 4_552_879_072)])
def test_sizes(size: int, macs: int) -> None:
    """As in timm; Keras reports 54,528 more parameters, which are running statistics."""
    assert counts("xception", (1, 3, size, size)) == (22_855_952, macs)


def to_timm(key: str) -> str:
    """Translate a name of ours into timm's, which numbers blocks through and names the layers outside them."""
    key = re.sub(r"^head\.fc", "fc", key)
    for ours, theirs in (("0", "conv1"), ("1", "bn1"), ("3", "conv2"), ("4", "bn2")):
        key = re.sub(rf"^stem\.{ours}\.", f"{theirs}.", key)
    for ours, theirs in (("1", "conv3"), ("2", "bn3"), ("4", "conv4"), ("5", "bn4")):
        key = re.sub(rf"^stages\.3\.{ours}\.", f"{theirs}.", key)
    key = re.sub(r"^stages\.([01])\.", lambda match: f"block{int(match[1]) + 1}.", key)
    key = re.sub(r"^stages\.2\.(\d)\.", lambda match: f"block{int(match[1]) + 3}.", key)
    key = re.sub(r"^stages\.3\.0\.", "block12.", key)
    key = key.replace("shortcut.0", "skip").replace("shortcut.1", "skipbn").replace("body", "rep")
    return key.replace("depthwise", "conv1")


def test_it_equals_timms() -> None:
    theirs = oracles.timm().create_model("legacy_xception", num_classes=5).eval()
    ours = create_model("xception", num_classes=5).eval()
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            if "running" in name:
                value.uniform_(0.8, 1.2)
    state = theirs.state_dict()
    ours.load_state_dict({key: state[to_timm(key)] for key in ours.state_dict()})
    x = torch.randn(1, 3, 71, 71)
    with torch.no_grad():
        assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_small_stem_keeps_the_resolution() -> None:
    with torch.device("meta"):
        features = create_model("xception", stem="cifar", features_only=True)(torch.empty(2, 3, 32, 32))
    assert [feature.shape[-1] for feature in features] == [16, 8, 4, 2]


@pytest.mark.parametrize(("options", "named"), [({"stem": "tiny"}, "`stem`"), ({"dropout": 1}, "`dropout`")])
def test_wrong_arguments_are_named(options: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        create_model("xception", **options)
