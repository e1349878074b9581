"""Receptive fields by hand arithmetic, stages, and what is refused."""

import json

import pytest
import torch
from nets import Attending, Branches
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.receptive import AxisField, ReceptiveField, receptive_field


def layers(found: ReceptiveField) -> dict[str, tuple[AxisField, ...]]:
    return {layer.name: layer.axes for layer in found.layers}


def test_windows_follow_the_textbook() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, (7, 3), 2, (3, 1)),
        nn.BatchNorm2d(8),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2),
    )
    found = layers(receptive_field(net, (1, 3, 64, 64)))
    assert found["0"] == (AxisField(7, 2.0, -3.0, 7), AxisField(3, 2.0, -1.0, 3))
    assert found["2"] == (AxisField(11, 4.0, -5.0, 11), AxisField(7, 4.0, -3.0, 7))
    assert found["3"][0] == AxisField(27, 4.0, -13.0, 27)
    # Windows of 7 samples at distances of 8 leave one unseen between them.
    assert found["3"][1] == AxisField(23, 4.0, -11.0, 21)
    assert "1" not in found


def test_branches_unite() -> None:
    mixed = layers(receptive_field(Branches(), (1, 3, 32, 32)))["mix"]
    # Taps at -4, 0 and 4 united with -2 to 2 along the height; the tall kernel has no width.
    assert mixed == (AxisField(9, 1.0, -4.0, 7), AxisField(9, 1.0, -4.0, 3))


def test_attention_and_the_head_see_the_whole_image() -> None:
    found = layers(receptive_field(create_model("se_resnet18", base_width=4, stem="cifar"), (1, 3, 32, 32)))
    assert found["stages.0.0.conv2"][0] == AxisField(7, 1.0, -3.0, 7)
    assert found["stages.0.1.conv1"][0] == AxisField(32, None, None, 32)
    assert found["head"][1] == AxisField(32, None, None, 32)


def test_tokens_and_single_numbers_see_everything() -> None:
    found = receptive_field(Attending(), (1, 3, 8, 8))
    assert found.unknown == ()
    assert layers(found)["conv"][0] == AxisField(3, 1.0, -1.0, 3)
    assert layers(found)["norm"][0] == AxisField(8, None, None, 8)


def test_resnet_stages_and_saturation() -> None:
    found = receptive_field(create_model("resnet20_cifar", base_width=4), (1, 3, 32, 32))
    assert [stage.resolution for stage in found.stages] == [(32, 32), (16, 16), (8, 8)]
    assert [stage.input_shape for stage in found.stages] == [(1, 3, 32, 32), (1, 4, 32, 32), (1, 8, 16, 16)]
    first, _, last = found.stages
    assert [round(kernel.portion * 32**2) for kernel in first.kernels] == [(3 + 2 * n) ** 2 for n in range(7)]
    assert first.saturated_by is None
    # A strided kernel spans 3 of 16 samples, each further one 4 more, until the fifth reaches both ends.
    assert [round(kernel.portion * 16**2) for kernel in last.kernels] == [9, 49, 121, 225, 256, 256]
    assert last.saturated_by == "stages.2.2.conv1"
    assert last.kernels[-1].gain == 0


def test_the_record_is_json() -> None:
    found = receptive_field(create_model("shufflenet_v2_050", num_classes=3), (1, 3, 64, 64))
    record = json.loads(found.to_json())
    assert record["input_size"] == [1, 3, 64, 64]
    assert len(record["stages"]) == len({tuple(stage["resolution"]) for stage in record["stages"]})
    assert found.unknown == ()


class Sorted(nn.Module):
    """Sorts each row: which sample ends where depends on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).sort(-1).values


def test_unknown_operators_see_everything_and_are_listed() -> None:
    found = receptive_field(Sorted(), (1, 2, 8, 8))
    assert found.unknown == ("aten.sort.default",)
    assert found.layers[-1].axes[1] == AxisField(8, None, None, 8)


class Choosing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            return x + 1
        return x


class Selecting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0].sqrt()


def test_what_cannot_be_traced_is_refused_with_its_line() -> None:
    with pytest.raises(UserError, match=r"line \d+ of .*test_field.py: if x.mean\(\) > 0.*torch.where"):
        receptive_field(Choosing(), (1, 2, 8, 8))
    with pytest.raises(UserError, match=r"test_field.py.*x\[x > 0\]"):
        receptive_field(Selecting(), (1, 2, 8, 8))


def test_images_that_do_not_fit_are_refused() -> None:
    net = create_model("resnet20_cifar", base_width=4)
    with pytest.raises(UserError, match=r"smaller than the stride 4.*at least 4"):
        receptive_field(net, (1, 3, 3, 8))
    with pytest.raises(UserError, match=r"`input_size` \(1, 2, 8, 8\) does not fit"):
        receptive_field(net, (1, 2, 8, 8))
    with pytest.raises(UserError, match="a batch, channels and one to three lengths"):
        receptive_field(net, (3, 32))
    with pytest.raises(UserError, match="does not fit"):
        receptive_field(nn.Conv2d(3, 4, 7), (1, 3, 4, 4))


def test_the_network_is_left_as_it_was() -> None:
    net = create_model("ran26", base_width=4).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    receptive_field(net)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
