import pytest
import torch
from counting import counts
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.antnet import ANTBlock, ANTNet
from leanconv.ops import SqueezeExcitation

PHOTO, SMALL = (1, 3, 224, 224), (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "input_size", "kwargs", "params", "macs"),
    [
        ("antnet_g1", PHOTO, {}, 3_820_584, 301_089_984),
        ("antnet_g2", PHOTO, {}, 3_339_240, 245_244_096),
        ("antnet_g1", PHOTO, {"width_multiplier": 1.4}, 6_729_704, 582_816_752),
        ("antnet_g2", PHOTO, {"width_multiplier": 1.4}, 5_783_144, 472_592_624),
        ("antnet_g1", SMALL, {"stem": "cifar", "num_classes": 100}, 2_667_684, 88_407_360),
        ("antnet_g2", SMALL, {"stem": "cifar", "num_classes": 100}, 2_186_340, 70_171_968),
    ],
)
def test_counts_of_our_reconstruction(name: str, input_size: tuple, kwargs: dict, params: int, macs: int) -> None:
    """Calculated by hand from the layer table; the paper prints 3.7 M (g=1) and 3.2 M (g=2)."""
    assert counts(name, input_size, **kwargs) == (params, macs)


def elements(name: str) -> int:
    """Twice the values that batch norms write, once those that ReLU6 and the attention write, for one photo."""
    total = 0

    def add(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * (2 if isinstance(module, torch.nn.BatchNorm2d) else 1)

    with torch.device("meta"):
        model = create_model(name).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.ReLU6 | SqueezeExcitation):
                module.register_forward_hook(add)
        model(torch.empty(PHOTO))
    return total


@pytest.mark.parametrize(("name", "millions"), [("antnet_g1", 322.9), ("antnet_g2", 267.0)])
def test_multiply_adds_with_normalisations_are_the_published_ones(name: str, millions: float) -> None:
    """322 M and 267 M in the paper's table 7, if it counts normalised, rectified and scaled values too."""
    assert round((counts(name, PHOTO)[1] + elements(name)) / 1e6, 1) == millions


def test_attention_is_as_wide_as_the_third_party_has_it() -> None:
    with torch.device("meta"):
        model = create_model("antnet_g1")
    widths = [module.fc1.out_features for module in model.modules() if isinstance(module, SqueezeExcitation)]
    assert widths == [4, 12, 18, 12, 16, 16, 12, 24, 24, 24, 16, 24, 24, 18, 30, 30, 15]


def test_biases_in_the_attention_would_give_the_other_reading() -> None:
    """3,828,039 parameters with biases, as the third-party implementation has them."""
    with torch.device("meta"):
        modules = list(create_model("antnet_g1").modules())
        biased = sum(
            sum(p.numel() for p in SqueezeExcitation(m.channels, m.channels / m.fc1.out_features).parameters())
            - sum(p.numel() for p in m.parameters())
            for m in modules
            if isinstance(m, SqueezeExcitation)
        )
    assert 3_820_584 + biased == 3_828_039


def test_block_attends_to_the_expanded_channels_and_adds_its_input() -> None:
    block = ANTBlock(8, 8, expansion=3, reduction=4, groups=2).double().eval()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    y = block.depthwise(block.expand(x))
    fc1, fc2 = block.expanded_attention.fc1.weight, block.expanded_attention.fc2.weight
    assert fc1.shape == (6, 24)
    scales = ((y.mean((2, 3)) @ fc1.T).relu() @ fc2.T).sigmoid()
    halves = zip((y * scales[..., None, None]).chunk(2, 1), block.project[0].weight.flatten(1).chunk(2), strict=True)
    projected = torch.cat([torch.einsum("nchw,oc->nohw", half, weight) for half, weight in halves], dim=1)
    assert_close(block(x), x + block.project[1](projected))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UserError, match="`groups` must divide `out_channels` = 32, got 3"), torch.device("meta"):
        ANTNet(3)
    with pytest.raises(UserError, match=r"`reduction` .* got 0.5"):
        ANTBlock(8, 8, reduction=0.5)
    with pytest.raises(UserError, match="`width_multiplier`"):
        ANTNet(width_multiplier=0)
