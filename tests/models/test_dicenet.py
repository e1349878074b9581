import json

import pytest
import torch
from counting import counts
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.dicenet import DiCENet, ShuffleDiCE, StridedDiCE
from leanconv.ops import DiCE

#: Parameters and MACs by width in percent, calculated from sacmehta/EdgeNets; they round to the MFLOPs of its README.
COUNTS = {
    20: (1_130_704, 14_902_464),
    50: (1_214_120, 24_711_328),
    75: (1_495_676, 46_825_936),
    100: (1_805_604, 70_709_744),
    125: (2_162_888, 98_114_272),
    150: (2_652_200, 135_479_200),
    175: (3_264_932, 182_243_260),
    200: (3_979_044, 236_290_928),
    240: (5_113_628, 297_941_296),
}


@pytest.mark.parametrize("percent", COUNTS)
def test_counts_are_those_of_the_authors_code(percent: int) -> None:
    assert counts(f"dicenet_{percent:03d}", (1, 3, 224, 224)) == COUNTS[percent]


@pytest.mark.parametrize(
    ("channels", "side", "params", "macs"),
    [
        (16, 28, 2_008, 1_003_648),
        (24, 28, 3_240, 1_806_624),
        (116, 14, 40_156, 6_372_808),
        (232, 7, 147_214, 5_847_328),
    ],
)
def test_strided_units_have_the_authors_counts(channels: int, side: int, params: int, macs: int) -> None:
    with torch.device("meta"):
        unit = StridedDiCE(channels, (side, side))
        with FlopCounterMode(display=False) as counter:
            y = unit(torch.empty(1, channels, 2 * side, 2 * side))
    assert y.shape == (1, 2 * channels, side, side)
    assert sum(p.numel() for p in unit.parameters()) == params
    assert counter.get_total_flops() == 2 * macs


def test_half_of_the_channels_pass_a_unit_and_the_result_is_shuffled() -> None:
    unit = ShuffleDiCE(6, 10, (4, 5)).eval()
    x = torch.randn(2, 6, 4, 5)
    y = unit(x)
    together = torch.cat((x[:, :3], unit.body(x[:, 3:])), 1)
    assert_close(y, together[:, [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]])


def test_average_pooling_counts_its_padding() -> None:
    pool = StridedDiCE(4, (2, 2)).dice[0]
    assert_close(pool(torch.ones(1, 1, 4, 4))[0, 0], torch.tensor([[4.0, 6.0], [6.0, 9.0]]) / 9)


@pytest.mark.parametrize(
    ("size", "sides"), [((224, 224), (28, 14, 7)), ((160, 96), (20, 10, 5)), ((33, 65), (5, 3, 2))]
)
def test_units_are_made_for_the_maps_they_get(size: tuple[int, int], sides: tuple[int, ...]) -> None:
    """No unit of a network resamples images of the size it was made for, odd sizes included."""
    with torch.device("meta"):
        model = create_model("dicenet_020", image_size=size, features_only=True)
        features = model(torch.empty(1, 3, *size))
    assert tuple(feature.shape[2] for feature in features) == sides
    for stage, feature in zip(model.stages, features, strict=True):
        for unit in stage.modules():
            if isinstance(unit, DiCE):
                assert unit.dim_conv.size == feature.shape[2:]


def test_the_image_size_is_kept_with_the_network() -> None:
    with torch.device("meta"):
        model = create_model("dicenet_020", image_size=(64, 96))
        config = json.loads(json.dumps(model.config))
        again = create_model(config["name"], **config["kwargs"])
    assert again.input_size == model.input_size == (3, 64, 96)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in again.state_dict().items()}


def test_the_small_stem_keeps_the_resolution() -> None:
    model = create_model("dicenet_020", stem="cifar", num_classes=10)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert [unit.dim_conv.size for unit in model.modules() if isinstance(unit, DiCE)][::4] == [
        (16, 16),
        (8, 8),
        (8, 8),
        (4, 4),
    ]


def test_images_of_other_sizes_are_resampled() -> None:
    model = create_model("dicenet_020", num_classes=10).eval()
    with torch.inference_mode():
        for sides in ((96, 160), (33, 47), (256, 256)):
            assert model(torch.randn(1, 3, *sides)).isfinite().all()


def test_wider_networks_drop_more() -> None:
    with torch.device("meta"):
        rates = {
            percent: [m.p for m in create_model(f"dicenet_{percent:03d}").modules() if isinstance(m, nn.Dropout)]
            for percent in (20, 100, 125, 240)
        }
    assert rates == {20: [0.1], 100: [0.1], 125: [0.2], 240: [0.2]}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"planes": (24, 116, 232, 464)}, "`planes` must be five.*would work"),
        ({"planes": (24, 116, 115, 464, 1024)}, "`planes` must be even.* got 115 after 116"),
        ({"planes": (24, 118, 232, 466, 1024)}, "`planes` must end .*multiples of 4, got 466 and 1024"),
        ({"planes": (24, 24, 232, 464, 1024)}, "`planes` must be even in a stage and grow, got 24 after 24"),
        ({"image_size": (224, 0)}, "`image_size`.* got"),
        ({"stem": "small"}, "`stem`"),
        ({"dropout": 1.0}, "`dropout`"),
    ],
)
def test_wrong_arguments_are_named(options: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=sentence):
        DiCENet(**options)
