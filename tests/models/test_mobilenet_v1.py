import pytest
import torch
from counting import counts
from torch import nn

from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.mobilenet_v1 import MobileNetV1


def test_counts_of_the_width_beside_the_golden_ones() -> None:
    """The paper prints 2.6 M and 325 M."""
    assert counts("mobilenet_v1_075", (1, 3, 224, 224)) == (2_585_560, 325_400_448)


def test_counts_with_the_small_stem() -> None:
    """Calculated from kuangliu/pytorch-cifar's MobileNet: 3.217 M parameters, five maps from 32 to 2 pixels."""
    assert counts("mobilenet_v1_100", (1, 3, 32, 32), stem="cifar", num_classes=10)[0] == 3_217_226
    with torch.device("meta"):
        maps = create_model("mobilenet_v1_100", stem="cifar", features_only=True)(torch.empty(2, 3, 32, 32))
    assert [feature.shape[1:3] for feature in maps] == [(64, 32), (128, 16), (256, 8), (512, 4), (1024, 2)]


def test_layers_are_those_of_the_papers_table() -> None:
    with torch.device("meta"):
        model = create_model("mobilenet_v1_100")
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 27
    depthwise, pointwise = convs[1::2], convs[2::2]
    assert all(conv.kernel_size == (3, 3) for conv in depthwise)
    assert all(conv.groups == conv.in_channels == conv.out_channels for conv in depthwise)
    assert [conv.stride[0] for conv in depthwise] == [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    assert [conv.out_channels for conv in pointwise] == [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"width_multiplier": 0}, "`width_multiplier` .* got 0; 1 would work"),
        ({"width_multiplier": 75}, "`width_multiplier` .* got 75; 0.75 would work"),
        ({"width_multiplier": float("nan")}, "`width_multiplier` .* 1 would work"),
        ({"stem": "tiny"}, "`stem`"),
        ({"dropout": 1.5}, "`dropout`"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        MobileNetV1(**kwargs)
