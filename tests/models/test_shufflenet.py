import re

import pytest
import torch
from counting import counts
from torch.testing import assert_close

import oracles
from leanconv.errors import UserError
from leanconv.models import create_model

IMAGE = (1, 3, 224, 224)


@pytest.mark.parametrize(
    ("groups", "width", "params", "macs"),
    [
        (1, 1.0, 1_531_936, 143_078_976),
        (2, 1.0, 1_733_848, 140_836_512),
        (3, 1.0, 1_865_728, 137_460_672),
        (4, 1.0, 1_968_344, 134_339_776),
        (8, 1.0, 2_434_768, 138_365_952),
        (3, 0.5, 718_324, 37_589_856),
        (3, 1.5, 3_442_168, 292_443_552),
        (3, 2.0, 5_450_776, 524_045_184),
        (8, 0.5, 1_011_448, 40_469_760),
        (8, 1.5, 4_269_952, 290_188_800),
        (8, 2.0, 6_522_232, 521_942_016),
    ],
)
def test_v1_sizes(groups: int, width: float, params: int, macs: int) -> None:
    """Counted from megvii-model/ShuffleNet-Series, whose classifier has no bias, and with one."""
    options = {"groups": groups, "width_multiplier": width}
    assert counts("shufflenet_v1_g3_100", IMAGE, classifier_bias=True, **options) == (params, macs)
    assert counts("shufflenet_v1_g3_100", IMAGE, **options) == (params - 1000, macs)


@pytest.mark.parametrize(
    ("name", "official", "torchvision"),
    [
        ("shufflenet_v2_050", (1_365_792, 40_476_448), (1_366_792, 40_476_448)),
        ("shufflenet_v2_100", (2_278_760, 145_814_296), (2_278_604, 144_907_992)),
        ("shufflenet_v2_150", (3_506_720, 298_970_656), (3_503_624, 295_759_392)),
        ("shufflenet_v2_200", (7_402_600, 590_783_000), (7_393_996, 583_253_464)),
    ],
)
def test_v2_sizes(name: str, official: tuple[int, int], torchvision: tuple[int, int]) -> None:
    """Counted from megvii-model/ShuffleNet-Series and from torchvision, which differ."""
    assert counts(name, IMAGE) == official
    assert counts(name, IMAGE, variant="torchvision") == torchvision


def to_torchvision(key: str) -> str:
    """Translate a name of ours into torchvision's, whose branches number their layers through."""
    key = re.sub(r"^stem\.0\.", "conv1.", key)
    key = re.sub(r"^head\.0\.", "conv5.", key)
    key = re.sub(r"^head\.1\.fc\.", "fc.", key)
    key = re.sub(r"^stages\.(\d)\.", lambda match: f"stage{int(match[1]) + 2}.", key)
    for ours, theirs, starts in (("passed", "branch1", (0, 2)), ("body", "branch2", (0, 3, 5))):
        key = re.sub(
            rf"{ours}\.(\d)\.(\d)",
            lambda match, theirs=theirs, starts=starts: f"{theirs}.{starts[int(match[1])] + int(match[2])}",
            key,
        )
    return key


def test_v2_equals_torchvisions() -> None:
    theirs = oracles.torchvision().models.shufflenet_v2_x0_5(num_classes=10).eval()
    ours = create_model("shufflenet_v2_050", variant="torchvision", num_classes=10).eval()
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            if "running" in name:
                value.uniform_(0.5, 1.5)
    state = theirs.state_dict()
    ours.load_state_dict({key: state[to_torchvision(key)] for key in ours.state_dict()})
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_units_follow_the_release() -> None:
    """V2 passes even channels on and puts what became of odd ones behind; V1 shuffles by the inverse permutation."""
    unit = create_model("shufflenet_v2_050").eval().stages[1][1]
    x = torch.randn(1, 96, 6, 6)
    with torch.no_grad():
        assert torch.equal(unit(x), torch.cat((x[:, ::2], unit.body(x[:, 1::2])), 1))
    shuffle = create_model("shufflenet_v1_g3_050").stages[0][1].shuffle
    x = torch.randn(1, 30, 2, 2)
    assert torch.equal(shuffle(x), x.reshape(1, 10, 3, 2, 2).permute(0, 2, 1, 3, 4).reshape(1, 30, 2, 2))


@pytest.mark.parametrize("name", ["shufflenet_v1_g3_050", "shufflenet_v2_050"])
def test_small_stem_keeps_the_resolution(name: str) -> None:
    with torch.device("meta"):
        features = create_model(name, stem="cifar", features_only=True)(torch.empty(2, 3, 32, 32))
    assert [feature.shape[-1] for feature in features] == [16, 8, 4]


def test_first_weights_follow_the_authors() -> None:
    model = create_model("shufflenet_v1_g3_100")
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() == 4}
    assert_close(weights.pop("stem.0.0.weight").std(), torch.tensor(0.01), rtol=0.1, atol=0)
    weight = weights["stages.2.1.reduce.0.weight"]
    assert_close(weight.std(), torch.tensor(1 / weight.shape[1]), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("shufflenet_v1_g3_100", {"groups": 5}, "`groups` must be one of .* got 5; 4 would work"),
        ("shufflenet_v1_g3_100", {"width_multiplier": 0}, "`width_multiplier`"),
        ("shufflenet_v1_g3_100", {"stem": "small"}, "`stem`"),
        ("shufflenet_v2_100", {"width_multiplier": 0.75}, "`width_multiplier`.* got 0.75; 0.5 would work"),
        ("shufflenet_v2_100", {"variant": "timm"}, "`variant`"),
    ],
)
def test_wrong_arguments_are_named(name: str, options: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        create_model(name, **options)
