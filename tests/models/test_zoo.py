"""Everything registered is built, counted, run forwards and backwards."""

import json
from pathlib import Path

import pytest
import torch
from counting import counts

from leanconv.errors import UserError
from leanconv.measurement.zoo_counts import zoo_counts
from leanconv.models import MODELS, create_model, list_models

CLASSIFIERS = list_models(purpose="classify")
GOLDEN = json.loads((Path(__file__).parent / "golden_counts.json").read_text())["models"]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda entry: f"{entry['model']}-{entry['input'][-1]}")
def test_counts_are_the_published_ones(golden: dict) -> None:
    if golden["model"] not in MODELS:
        pytest.skip("not in the zoo yet")
    params, macs = counts(golden["model"], golden["input"], **golden["kwargs"])
    assert params == golden["params"]
    assert macs == golden["macs"]


@pytest.mark.parametrize("name", list_models())
def test_the_counts_that_are_shipped_are_current(name: str) -> None:
    assert zoo_counts(name) == counts(name, (1, *MODELS[name].input_size)), "run python docs/generate_models.py"


def small(name: str, **options: object) -> torch.nn.Module:
    return create_model(name, **{"num_classes": 7, **MODELS[name].small, **options})


def tiny_input(name: str, in_channels: int, batch: int = 3) -> torch.Tensor:
    """The smallest images of the family that still leave more than one sample for batch norm."""
    size = [min(side, 64) for side in MODELS[name].input_size[1:]]
    return torch.randn(batch, in_channels, *size)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = small(name, in_channels=2)
    logits = model(tiny_input(name, 2))
    assert logits.shape == (3, 7)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 3, 6])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_rebuilds_from_its_config(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=3, in_channels=2)
        config = json.loads(json.dumps(model.config))
        again = create_model(config["name"], **config["kwargs"])
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in again.state_dict().items()}
    assert model.input_size[0] == 2


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_features_are_the_stage_outputs(name: str) -> None:
    with torch.device("meta"):
        images = torch.empty(2, *MODELS[name].input_size)
        features = create_model(name, features_only=True).eval()(images)
        whole = create_model(name).eval()
        assert whole(images).shape == (2, MODELS[name].num_classes)
    assert len(features) == len(whole.stages)
    sides = [feature.shape[-1] for feature in features]
    assert sides == sorted(sides, reverse=True)


def test_images_below_the_stride_are_refused_at_construction() -> None:
    assert create_model("ran26", image_size=(8, 12), base_width=4).input_size == (3, 8, 12)
    with pytest.raises(UserError, match="at least 8 pixels"):
        create_model("ran26", image_size=(32, 7), base_width=4)


def test_input_size_follows_the_stem() -> None:
    with torch.device("meta"):
        assert create_model("resnet18").input_size == (3, 224, 224)
        assert create_model("resnet18", stem="cifar", in_channels=1).input_size == (1, 32, 32)
        assert create_model("resnet18", stem="cifar", image_size=(64, 48)).input_size == (3, 64, 48)


def test_unknown_names_and_values_are_answered_with_what_would_work() -> None:
    with pytest.raises(UserError, match="ran26"):
        create_model("rn26")
    with pytest.raises(UserError, match="base_width"):
        create_model("ran26", basewidth=16)
    with pytest.raises(UserError, match="num_classes"):
        create_model("ran26", num_classes=0)
    with pytest.raises(UserError, match="base_width"):
        create_model("ran26", base_width=0)
    with pytest.raises(UserError, match="6 would work"):
        create_model("squeezenext26_cifar", base_width=5)
    for depths in (3, (), (1, 2), (0, 0, 0, 0), (1, 2, 4, "1")):
        with pytest.raises(UserError, match=r"`depths` must be 4 positive integers.*\(1, 2, 4, 1\) would work"):
            create_model("ran26", depths=depths)
    with pytest.raises(UserError, match="`image_size` must be height and width, got 32"):
        create_model("ran26", image_size=32)  # type: ignore[arg-type]
    assert list_models("ran26*") == ["ran26", "ran26_full"]
