"""Everything registered is built, counted, run forwards and backwards."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from leanconv.errors import UserError
from leanconv.models import MODELS, create_model, list_models

GOLDEN = json.loads((Path(__file__).parent / "golden_counts.json").read_text())["models"]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda entry: f"{entry['model']}-{entry['input'][-1]}")
def test_counts_are_the_published_ones(golden: dict) -> None:
    if golden["model"] not in MODELS:
        pytest.skip("not in the zoo yet")
    with torch.device("meta"):
        model = create_model(golden["model"], **golden["kwargs"]).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(golden["input"]))
    assert sum(p.numel() for p in model.parameters()) == golden["params"]
    assert counter.get_total_flops() == 2 * golden["macs"]


def narrow(name: str, **options: object) -> torch.nn.Module:
    return create_model(name, base_width=4, num_classes=7, **options)


@pytest.mark.parametrize("name", [name for name in MODELS if "26" in name or name == "resnet20_cifar"])
def test_gradients_reach_every_parameter(name: str) -> None:
    model = narrow(name, in_channels=1)
    logits = model(torch.randn(3, 1, 16, 20))
    assert logits.shape == (3, 7)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 3, 6])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", list(MODELS))
def test_rebuilds_from_its_config(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=3, in_channels=2)
        config = json.loads(json.dumps(model.config))
        again = create_model(config["name"], **config["kwargs"])
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in again.state_dict().items()}
    assert model.input_size[0] == 2


@pytest.mark.parametrize(
    "name", ["ran26", "resnet26_cifar", "mobilenet26_cifar", "squeezenext26_cifar", "resnet20_cifar"]
)
def test_features_are_the_stage_outputs(name: str) -> None:
    with torch.device("meta"):
        features = narrow(name, features_only=True)(torch.empty(2, 3, 32, 32))
    assert [feature.shape[-1] for feature in features] == [32, 16, 8, 4][: len(features)]


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
    assert list_models("ran26*") == ["ran26", "ran26_full"]
