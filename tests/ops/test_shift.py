import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from leanconv.errors import UserError
from leanconv.ops import (
    AddressPointwise2d,
    ChannelShift2d,
    RollingPointwise2d,
    ShiftedGroupedPointwise1d,
    ShiftedGroupedPointwise2d,
    ShiftedGroupedPointwise3d,
    channel_shift,
    channel_shuffle,
    onednn,
)

FORMS = {1: ShiftedGroupedPointwise1d, 2: ShiftedGroupedPointwise2d, 3: ShiftedGroupedPointwise3d}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
#: Large enough for products on memory to be chosen.
SPATIAL = {1: (2000,), 2: (45, 44), 3: (12, 13, 14)}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def test_half_a_group_moves_left_as_in_the_figure() -> None:
    letters = ["A1", "A2", "B1", "B2", "C1", "C2", "D1", "D2"]
    moved = channel_shift(torch.arange(8).view(1, 8), groups=4).flatten()
    assert [letters[i] for i in moved] == ["A2", "B1", "B2", "C1", "C2", "D1", "D2", "A1"]
    x = torch.randn(2, 16, 3, 3)
    assert torch.equal(channel_shift(x, groups=4), x.roll(-2, 1))


@pytest.mark.parametrize(
    ("permute", "groups", "needed"),
    [
        (channel_shift, 2, 2),
        (channel_shift, 4, 4),
        (channel_shift, 8, 8),
        (channel_shuffle, 2, 2),
        (channel_shuffle, 4, 2),
        (channel_shuffle, 8, 3),
    ],
)
def test_convolutions_until_everything_is_connected(permute, groups: int, needed: int) -> None:
    weight = torch.ones(32, 32 // groups, 1)
    reach = F.conv1d(torch.eye(32)[None], weight, groups=groups)  # row: output channel, column: input channel
    layers = 1
    while not reach.all():
        reach = F.conv1d(permute(reach, groups), weight, groups=groups)
        layers += 1
    assert layers == needed


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_inference_in_place_equals_shifting_first(dims: int, groups: int, batch: int) -> None:
    operator = FORMS[dims](32, 64, groups, bias=batch > 1).double()
    x = torch.randn(batch, 32, *SPATIAL[dims], dtype=torch.float64)
    expected = CONV[dims](x.roll(-16 // groups, 1), operator.conv.weight, operator.conv.bias, groups=groups)
    assert_close(operator(x), expected, rtol=1e-12, atol=1e-12)
    operator.conv.register_forward_hook(lambda *_: pytest.fail("the shift was carried out"))
    with torch.inference_mode():
        assert_close(operator(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_inference_in_parts_equals_shifting_first(dims: int, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "LEAST_ELEMENTS", 1)
    operator = FORMS[dims](128, 64, 2)
    memory_format = LAST[dims] if last and dims > 1 else torch.contiguous_format
    x = torch.randn(9, 128, *{1: (120,), 2: (11, 12), 3: (4, 5, 6)}[dims]).contiguous(memory_format=memory_format)
    expected = operator(x)
    operator.conv.register_forward_hook(lambda *_: pytest.fail("all images were shifted at once"))
    with torch.inference_mode():
        assert_close(operator(x), expected, rtol=1e-4, atol=1e-5)


def test_autocast_half_precision_and_frozen_weights_are_served() -> None:
    operator = ShiftedGroupedPointwise2d(16, 16, 4).requires_grad_(False)
    x = torch.randn(2, 16, 12, 12)
    expected = operator.conv(x.roll(-2, 1))
    assert_close(operator(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        y = operator(x)
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    assert_close(operator.bfloat16()(x.bfloat16()).float(), expected, rtol=0.05, atol=0.05)


def test_fit_keeps_the_weights_inside_the_structure_and_no_others() -> None:
    conv = nn.Conv2d(16, 8, 1, dtype=torch.float64)
    kept = ShiftedGroupedPointwise2d.from_dense(conv, channel_groups=4).dense().weight
    inside = kept != 0
    assert inside.sum() == 8 * 4
    assert torch.equal(kept[inside], conv.weight[inside])
    assert_close(ShiftedGroupedPointwise2d.from_dense(conv).dense().weight, conv.weight)
    with pytest.raises(UserError, match="`conv` must be pointwise"):
        ShiftedGroupedPointwise2d.from_dense(nn.Conv2d(8, 8, 3))


def test_a_convolution_that_is_a_shift_is_recognised() -> None:
    assert ChannelShift2d.from_dense(ChannelShift2d(24, 3).dense()).channel_groups == 3
    with pytest.raises(UserError, match="ChannelShift2d"):
        ChannelShift2d.from_dense(nn.Conv2d(8, 8, 1))


@pytest.mark.parametrize("build", [lambda: ChannelShift2d(12, 4), lambda: ShiftedGroupedPointwise2d(12, 4, 4)])
def test_half_a_group_must_be_whole(build) -> None:
    with pytest.raises(UserError, match=r"`groups` times two must divide the 12 channels shifted, got 4; 3 would work"):
        build()


def test_groups_must_divide_the_outputs() -> None:
    with pytest.raises(UserError, match="`groups` must divide `out_channels` = 6, got 4; 3 would work"):
        ShiftedGroupedPointwise2d(16, 6, 4)
    with pytest.raises(UserError, match="even number of channels"):
        ChannelShift2d(7, 1)


@pytest.mark.parametrize("form", [ShiftedGroupedPointwise2d, AddressPointwise2d, RollingPointwise2d])
def test_products_on_memory_count_the_same_macs(form) -> None:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        form(16, 32, 4)(torch.randn(2, 16, 48, 48))
    assert counter.get_total_flops() == 2 * 2 * 16 * 32 // 4 * 48 * 48
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        form(256, 128, 4)(torch.randn(8, 256, 16, 16))
    assert counter.get_total_flops() == 2 * 8 * 256 * 128 // 4 * 256
