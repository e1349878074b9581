"""Every family of the zoo folds to a network that computes the same."""

import pytest
import torch
from torch import Tensor, nn
from trained import trained

from leanconv.deployment import fold
from leanconv.models import MODELS, create_model, list_models

FAMILIES = {MODELS[name].build: name for name in reversed(list_models(purpose="classify"))}
NORM = nn.modules.batchnorm._BatchNorm


def tensors(output: Tensor | list[Tensor]) -> list[Tensor]:
    return output if isinstance(output, list) else [output]


@pytest.mark.parametrize("name", sorted(FAMILIES.values()))
@pytest.mark.parametrize("features_only", [False, True])
def test_every_family_computes_the_same(name: str, features_only: bool) -> None:
    options = {**MODELS[name].small, "in_channels": 2, "features_only": features_only}
    model = trained(create_model(name, num_classes=7, **options)).double()
    shape = (2, *(min(side, 64) for side in MODELS[name].input_size[1:]))
    folded = fold(model)
    x = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        for expected, found in zip(tensors(model(x)), tensors(folded(x)), strict=True):
            assert (expected - found).abs().max() <= 1e-12 * expected.abs().max()
    before, after = (sum(isinstance(m, NORM) for m in network.modules()) for network in (model, folded))
    assert after <= before
    assert len(folded.fold_record.folds) > 0 or not before


@pytest.mark.parametrize(
    ("name", "norms"),
    [("ran26", 0), ("resnet26_cifar", 0), ("mobilenet26_cifar", 0), ("repvgg_a0", 0), ("shufflenet_v2_050", 0)],
)
def test_no_batch_norm_is_left_where_all_follow_convolutions(name: str, norms: int) -> None:
    folded = fold(trained(create_model(name, **MODELS[name].small)))
    assert sum(isinstance(m, NORM) for m in folded.modules()) == norms
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
