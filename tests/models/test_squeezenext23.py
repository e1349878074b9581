import pytest
import torch
from counting import counts
from torch import nn

from leanconv.errors import UserError
from leanconv.models import create_model


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("squeezenext23_100", 718_280, 277_999_808),
        ("squeezenext23_g_100", 544_072, 224_191_552),
        ("squeezenext23_v5_100", 931_016, 224_916_480),
        ("squeezenext23_200", 2_362_728, 742_070_464),
        ("squeezenext23_v5_200", 3_223_912, 702_592_000),
    ],
)
def test_sizes_at_227_pixels(name: str, params: int, macs: int) -> None:
    """Counted from the Caffe definitions, amirgholami/SqueezeNext."""
    assert counts(name, (1, 3, 227, 227)) == (params, macs)


def test_layers_are_those_of_the_definition() -> None:
    with torch.device("meta"):
        model = create_model("squeezenext23_100")
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 111
    assert sum(isinstance(module, nn.ReLU) for module in model.modules()) == 132
    kernels = [block.body[2][0].kernel_size for stage in model.stages for block in stage]
    assert kernels == [(3, 1), (1, 3)] * 10 + [(3, 1)]


@pytest.mark.parametrize(("version", "sides"), [("v1", [55, 28, 14, 7]), ("v5", [56, 28, 14, 7])])
def test_resolutions(version: str, sides: list[int]) -> None:
    with torch.device("meta"):
        photo = create_model("squeezenext23_100", version=version, features_only=True)
        small = create_model("squeezenext23_100", version=version, features_only=True, stem="cifar")
        assert [feature.shape[-1] for feature in photo(torch.empty(2, 3, 227, 227))] == sides
        assert [feature.shape[-1] for feature in small(torch.empty(2, 3, 32, 32))] == [32, 16, 8, 4]


def test_version_five_shares_the_first_convolution_of_a_stage() -> None:
    with torch.device("meta"):
        stage = create_model("squeezenext23_v5_100").stages[1]
    assert stage[0][0].stride == (2, 2)
    assert all(isinstance(block.shortcut, nn.Identity) for block in stage[1:])
    assert len(stage) == 1 + 4


def test_weights_start_uniform_with_variance_one_over_fan_in() -> None:
    weight = create_model("squeezenext23_200").stages[3][0].body[0][0].weight
    bound = (3 / weight.shape[1]) ** 0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(weight.shape[1] ** -0.5, rel=0.02)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"version": "v3"}, "`version` must be 'v1' or 'v5', got 'v3'"),
        ({"groups": 3}, "`groups` must divide `the 64 channels of the stem` = 64, got 3"),
        ({"width_multiplier": -1}, "`width_multiplier`"),
        ({"stem": "tiny"}, "`stem`"),
    ],
)
def test_wrong_arguments_are_named(options: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        create_model("squeezenext23_100", **options)
