import pytest
import torch
from counting import counts
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.channelnet import ChannelNet
from leanconv.ops import ChannelwiseClassifier, GroupedChannelwiseConv2d
from reference_operators import ChannelwiseConv3d

PHOTO = (1, 3, 224, 224)


@pytest.mark.parametrize(
    ("name", "options", "params", "depthwise_norm_params", "million_macs"),
    [
        ("channelnet_v1", {}, 3_703_432, 3_714_376, 468.49),
        ("channelnet_v2", {}, 2_654_920, 2_665_864, 420.32),
        ("channelnet_v3", {}, 1_631_145, 1_642_089, 420.52),
        ("channelnet_v1_075", {}, 2_287_464, 2_295_672, 269.48),
        ("channelnet_v1_050", {}, 1_198_408, 1_203_880, 125.06),
        ("channelnet_v1", {"groups": 4}, 3_310_312, 3_321_256, 393.02),
        ("channelnet_v1", {"fusion": False}, 3_703_400, 3_714_344, 466.88),
    ],
)
def test_sizes_are_those_of_the_layer_table(
    name: str, options: dict, params: int, depthwise_norm_params: int, million_macs: float
) -> None:
    """Calculated by hand from the table of arXiv 1809.01330, with and without batch norm after depthwise layers.

    They round to the published 3.7, 2.7, 2.3 and 1.2 M; the published MACs are not reproduced by any reading.
    """
    found, macs = counts(name, PHOTO, **options)
    assert found == params
    assert round(macs / 1e6, 2) == million_macs
    assert counts(name, PHOTO, depthwise_norm=True, **options) == (depthwise_norm_params, macs)


def test_the_released_network_has_its_size() -> None:
    """Of the released code's last state, counted independently by pytorchcv's port."""
    params, macs = counts("channelnet_v1", PHOTO, skips="released")
    assert params == 3_875_112
    assert round(macs / 1e6, 2) == 534.97


@pytest.mark.parametrize(("name", "params"), [("channelnet_v2", 2_652_872), ("channelnet_v3", 1_629_097)])
def test_batch_norm_after_the_channelwise_layer_is_2048_parameters(name: str, params: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
    model.stages[-1][-1][2] = nn.Identity()
    assert sum(p.numel() for p in model.parameters()) == params


def test_groups_are_mixed_between_the_grouped_layers() -> None:
    """Two residual modules end, or in the release begin, with a convolution along the channels of 4 g taps."""
    for skips in ("table", "released"):
        model = ChannelNet(width_multiplier=0.25, skips=skips, num_classes=5)
        along = [m for m in model.modules() if isinstance(m, GroupedChannelwiseConv2d)]
        assert [tuple(m.weight.shape) for m in along] == [(2, 8), (2, 8)]
        assert [m.groups for m in model.stages[3].modules() if isinstance(m, nn.Conv2d) and m.groups == 2] == [2] * 6


def test_fast_and_slow_forms_of_the_network_agree() -> None:
    model = create_model("channelnet_v2", width_multiplier=0.25, num_classes=5).eval()
    x = torch.randn(2, 3, 64, 64)
    expected = model(x)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, GroupedChannelwiseConv2d):
                setattr(parent, name, ChannelwiseConv3d(child.weight))
    assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_the_small_stem_keeps_the_resolution_and_the_classifier_fits_it() -> None:
    for version, shape in ((1, (10, 256)), (3, (1, 4, 1, 247))):
        model = create_model(f"channelnet_v{version}", stem="cifar", num_classes=10, width_multiplier=0.25)
        assert next(model.head.parameters()).shape == shape
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    features = create_model("channelnet_v1", stem="cifar", width_multiplier=0.25, features_only=True)
    assert [f.shape[-1] for f in features(torch.randn(2, 3, 32, 32))] == [32, 16, 8, 4, 2]


def test_photos_of_another_size_are_pooled_to_the_classifiers() -> None:
    model = create_model("channelnet_v3", width_multiplier=0.25, num_classes=10)
    assert isinstance(model.head, ChannelwiseClassifier)
    assert model(torch.randn(2, 3, 96, 160)).shape == (2, 10)


def test_weights_start_as_in_the_released_code() -> None:
    model = create_model("channelnet_v1", width_multiplier=0.5, num_classes=100)
    for weight in (model.stages[3][0][0].weight, model.stages[4][1][1][0].weight, model.head.fc.weight):
        assert weight.abs().max() <= 0.18
        assert weight.std().item() == pytest.approx(0.09 * 0.88, rel=0.05)  # cut off at two standard deviations


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"version": 4}, "`version` must be 1, 2 or 3, got 4"),
        ({"groups": 3}, "`groups` must divide .* = 512, got 3; [24] would work"),
        ({"skips": "concat"}, "`skips` must be 'table' or 'released', got 'concat'"),
        ({"stem": "small"}, "`stem`"),
        ({"width_multiplier": 0}, "`width_multiplier`"),
        ({"version": 3, "width_multiplier": 0.75}, "`num_classes`.* 768.*got 1000; up to 768 would work"),
    ],
)
def test_wrong_arguments_are_named(options: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=sentence):
        ChannelNet(**options)
