import re

import pytest
import torch
from counting import counts
from torch import nn
from torch.testing import assert_close

import oracles
from leanconv.errors import UserError
from leanconv.models import create_model

#: Training parameters, deployed parameters and MACs, counted from DingXiaoH/RepVGG.
SIZES = {
    "a0": (9_108_968, 8_309_384, 1_361_451_008),
    "a1": (14_092_264, 12_789_864, 2_363_967_488),
    "a2": (28_210_600, 25_499_944, 5_116_951_552),
    "b0": (15_817_960, 14_339_048, 3_057_600_512),
    "b1": (57_415_016, 51_829_480, 11_815_485_440),
    "b1g2": (45_782_376, 41_360_104, 8_809_742_336),
    "b1g4": (39_966_056, 36_125_416, 7_306_870_784),
    "b2": (89_022_376, 80_315_112, 18_376_609_792),
    "b2g2": (70_846_376, 63_956_712, 13_680_136_192),
    "b2g4": (61_758_376, 55_777_512, 11_331_899_392),
    "b3": (123_085_288, 110_960_872, 26_208_882_688),
    "b3g2": (96_911_848, 87_404_776, 19_445_960_704),
    "b3g4": (83_825_128, 75_626_728, 16_064_499_712),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    train, deployed, macs = SIZES[name]
    assert counts(f"repvgg_{name}", (1, 3, 224, 224))[0] == train
    assert counts(f"repvgg_{name}", (1, 3, 224, 224), deploy=True) == (deployed, macs)


def unsettle(model: nn.Module) -> None:
    """Give every batch norm statistics and an affine map of its own."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)


@pytest.mark.parametrize("groups", [1, 2])
def test_deployed_form_is_exact(groups: int) -> None:
    model = create_model("repvgg_a0", groups=groups, base_width=8, depths=(2, 3, 2, 1), num_classes=10).double()
    unsettle(model)
    deployed = model.deployed()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert_close(deployed(x), model.eval()(x), rtol=1e-12, atol=1e-12)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in deployed.modules()) == 0
    again = create_model(deployed.config["name"], **deployed.config["kwargs"]).double().eval()
    again.load_state_dict(deployed.state_dict())
    assert torch.equal(again(x), deployed(x))
    assert torch.equal(deployed.deployed()(x), deployed(x))


def test_a_single_block_equals_the_sum_of_its_branches() -> None:
    block = create_model("repvgg_a0", base_width=8).stages[2][1].double().eval()
    unsettle(block)
    weight, bias = block.fuse()
    x = torch.randn(1, 24, 7, 7, dtype=torch.float64)
    assert_close(torch.relu(nn.functional.conv2d(x, weight, bias, padding=1)), block(x), rtol=1e-12, atol=1e-12)


def test_it_equals_timms() -> None:
    theirs = oracles.timm().create_model("repvgg_a0", num_classes=5).eval()
    unsettle(theirs)
    ours = create_model("repvgg_a0", num_classes=5).eval()
    state = theirs.state_dict()

    def to_timm(key: str) -> str:
        for name, branch in (("spatial", "conv_kxk"), ("pointwise", "conv_1x1")):
            key = re.sub(rf"{name}\.0\.", f"{branch}.conv.", key)
            key = re.sub(rf"{name}\.1\.", f"{branch}.bn.", key)
        return key

    ours.load_state_dict({key: state[to_timm(key)] for key in ours.state_dict()})
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        scale = expected.abs().max()
        assert_close(ours(x) / scale, expected / scale, rtol=1e-5, atol=1e-5)
        assert_close(ours.deployed()(x) / scale, expected / scale, rtol=1e-5, atol=1e-5)


def test_small_stem_keeps_the_resolution() -> None:
    with torch.device("meta"):
        features = create_model("repvgg_a0", stem="cifar", features_only=True)(torch.empty(2, 3, 32, 32))
    assert [feature.shape[-1] for feature in features] == [32, 16, 8, 4]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layout": "c0"}, "`layout` must be one of a0, .* got 'c0'"),
        ({"groups": 5}, "`groups` must divide"),
        ({"stem": "tiny"}, "`stem`"),
    ],
)
def test_wrong_arguments_are_named(options: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        create_model("repvgg_a0", **options)
