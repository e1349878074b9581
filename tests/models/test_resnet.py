import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.resnet import CifarResNet, PaddedShortcut


def test_option_a_subsamples_and_pads_channels_on_both_sides() -> None:
    x = torch.arange(2 * 25, dtype=torch.float32).reshape(1, 2, 5, 5)
    y = PaddedShortcut(2, 4, stride=2)(x)
    assert y.shape == (1, 4, 3, 3)
    assert_close(y[:, 1:3], x[:, :, ::2, ::2])
    assert y[:, [0, 3]].abs().sum() == 0


def test_depth_must_be_six_n_plus_two() -> None:
    with pytest.raises(UserError, match="20 would work"):
        CifarResNet(21)


@pytest.mark.parametrize(("name", "accuracy"), [("resnet20_cifar", 91.73), ("resnet44_cifar", 93.10)])
def test_released_weights_reach_their_accuracy(name: str, accuracy: float, data_folder, cifar10) -> None:
    """The figure was measured on all 10,000 test images by the code the weights come from."""
    model = create_model(name)
    model.load_state_dict(load_file(data_folder / f"weights/{name.removesuffix('_cifar')}_cifar10.safetensors"))
    model.eval().to(memory_format=torch.channels_last)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    correct = 0
    with torch.inference_mode():
        for images, labels in zip(cifar10.test.images.split(500), cifar10.test.labels.split(500), strict=True):
            x = (images / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
            correct += int((model(x).argmax(1) == labels).sum())
    assert round(correct / 100, 2) == pytest.approx(accuracy, abs=0.015)  # one or two images may tie in float32


def test_customary_names_load(tmp_path) -> None:
    model = create_model("resnet20_cifar", base_width=4)
    renamed = {}
    for key, value in model.state_dict().items():
        key = key.replace("stem.0.", "conv1.").replace("stem.1.", "bn1.").replace("head.fc.", "linear.")
        for stage in (2, 1, 0):
            key = key.replace(f"stages.{stage}.", f"layer{stage + 1}.")
        renamed[key] = value + 1
    other = nn.Sequential(create_model("resnet20_cifar", base_width=4))
    other.load_state_dict({f"0.{key}": value for key, value in renamed.items()})
    assert_close(other[0].stem[0].weight, model.stem[0].weight + 1)
