"""What is derived from the graph is what perturbing the image shows, for every family and every kind of operator."""

from inspect import signature

import pytest
import torch
from nets import Attending, Branches, Hourglass, Tokens, Transposed, grouped_stack
from torch import Tensor, nn

from leanconv.models import MODELS, create_model, list_models
from leanconv.ops import OPERATORS, RollingPointwise2d, StructuredConv
from leanconv.receptive import Reach, probe, reach

CLASSIFIERS = list_models(purpose="classify")
FAMILIES = list({MODELS[name].build: name for name in reversed(CLASSIFIERS)}.values())


def same(mine: tuple[Reach, ...], truth: tuple[Reach, ...]) -> bool:
    return len(mine) == len(truth) and all(a.equals(b) for a, b in zip(mine, truth, strict=True))


def small(name: str, **options: object) -> tuple[nn.Module, tuple[int, ...]]:
    model = create_model(name, **{"num_classes": 3, "in_channels": 2, **MODELS[name].small, **options})
    # Sides that do not halve evenly are the harder ones.
    return model, (1, 2, *(40, 32)[: len(MODELS[name].input_size) - 1])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_exact(name: str) -> None:
    model, size = small(name, features_only=True)
    assert same(reach(model, size), probe(model, size))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name not in FAMILIES])
def test_every_network_is_exact(name: str) -> None:
    model, size = small(name, features_only=True)
    assert same(reach(model, size), probe(model, size))


def test_the_classifier_sees_everything() -> None:
    model, size = small("resnet20_cifar")
    (found,) = reach(model, size)
    assert found.samples[0].shape == (3, 1, 40)
    assert found.samples[0].all()
    assert found.channels.all()


OPERATORS_2D = [name for name in OPERATORS if OPERATORS[name].dims == 2 and OPERATORS[name].examples]


@pytest.mark.parametrize("name", OPERATORS_2D)
def test_every_operator_is_exact(name: str) -> None:
    for example in OPERATORS[name].examples:
        missing = {"kernel_size": 3} if "kernel_size" in signature(OPERATORS[name]).parameters else {}
        operator: StructuredConv = OPERATORS[name](**{**missing, **example})
        size = (1, operator.in_channels, 9, 7)
        assert same(reach(operator, size), probe(operator, size)), example


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (Branches(), (1, 3, 16, 12)),
        (Hourglass(), (1, 3, 12, 20)),
        (Tokens(), (1, 3, 8, 16)),
        (Attending(), (1, 3, 6, 5)),
        (Transposed(6), (1, 5, 6, 7)),
        (grouped_stack(), (1, 16, 8, 8)),
        (nn.Sequential(nn.Conv1d(2, 4, 3, 2), nn.Conv1d(4, 4, 5, dilation=2, padding=4, groups=4)), (1, 2, 40)),
        (nn.Sequential(nn.Conv3d(2, 4, (1, 3, 5), (1, 2, 1)), nn.AvgPool3d(2), nn.PReLU()), (1, 2, 6, 9, 10)),
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding=2, padding_mode="reflect"), nn.PixelUnshuffle(2)), (1, 2, 10, 8)),
        (nn.Sequential(nn.Conv2d(2, 8, 1), nn.PixelShuffle(2), nn.AdaptiveAvgPool2d((3, 5))), (1, 2, 7, 6)),
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding="same"), nn.ZeroPad2d((3, 0, -1, 2))), (1, 2, 6, 5)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_hand_made_networks_are_exact(model: nn.Module, size: tuple[int, ...]) -> None:
    assert same(reach(model, size), probe(model, size))


def test_two_rolling_layers_reach_every_channel_and_grouped_ones_do_not() -> None:
    rolling = nn.Sequential(RollingPointwise2d(64, 64, 4), RollingPointwise2d(64, 64, 4))
    grouped = nn.Sequential(nn.Conv2d(64, 64, 1, groups=4), nn.Conv2d(64, 64, 1, groups=4))
    assert reach(rolling[:1], (1, 64, 2, 2))[0].channels.float().mean() == 0.25
    assert reach(rolling, (1, 64, 2, 2))[0].channels.all()
    assert reach(grouped, (1, 64, 2, 2))[0].channels.float().mean() == 0.25


def test_kernels_fixed_at_zero_are_not_seen() -> None:
    class Shift(nn.Module):
        kernel: Tensor

        def __init__(self) -> None:
            super().__init__()
            kernel = torch.zeros(2, 1, 3, 3)
            kernel[0, 0, 0, 1] = kernel[1, 0, 1, 2] = 1
            self.register_buffer("kernel", kernel)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.kernel, padding=1, groups=2)

    found = reach(Shift(), (1, 2, 5, 5))[0]
    assert torch.equal(found.samples[0][0], torch.eye(5, dtype=torch.bool).roll(1, 0).tril())
    assert torch.equal(found.samples[0][1], torch.eye(5, dtype=torch.bool))
