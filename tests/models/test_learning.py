"""Every family learns from real images: one epoch of CIFAR-10 at a small width, far above chance."""

import inspect
from typing import Any

import pytest
import torch

from leanconv.data import ImageData
from leanconv.models import MODELS, create_model
from leanconv.training import Recipe, train

#: One member a family: the first name registered for each class of network that takes images.
FAMILIES = {
    entry.build: name
    for name, entry in reversed([(name, MODELS[name]) for name in MODELS])
    if entry.purpose == "classify" and len(entry.input_size) == 3
}
RECIPE = Recipe(epochs=1, batch_size=64, lr=0.05, nesterov=True, weight_decay=5e-4, warmup_epochs=0.2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(FAMILIES.values()))
def test_one_epoch_of_cifar10_beats_35_percent(name: str, cifar10: ImageData) -> None:
    options: dict[str, Any] = dict(MODELS[name].small)
    if "stem" in inspect.signature(MODELS[name].build).parameters:
        options["stem"] = "cifar"
    torch.manual_seed(0)
    model = create_model(name, num_classes=10, image_size=(32, 32), **options)
    result = train(model, cifar10, RECIPE, progress=False)
    assert result.last["test_top1"] > 0.35
