import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import AddressPointwise2d, AddressShift2d, address_shift, shortcut_shift
from leanconv.ops.address import Border

IMAGE = torch.tensor([[0.3, 0.4, 0.8], [0.1, 0.6, 0.5], [0.7, 0.2, 0.9]])
A = float("nan")
#: The figure of the poster; A stands for whatever lies next in memory.
FIGURE = {
    "left": [[0.4, 0.8, 0.1], [0.6, 0.5, 0.7], [0.2, 0.9, A]],
    "up": [[0.1, 0.6, 0.5], [0.7, 0.2, 0.9], [A, A, A]],
    "right": [[A, 0.3, 0.4], [0.8, 0.1, 0.6], [0.5, 0.7, 0.2]],
    "down": [[A, A, A], [0.3, 0.4, 0.8], [0.1, 0.6, 0.5]],
}
#: The shift it replaces, with zeros at borders.
ZEROS = {
    "left": [[0.4, 0.8, 0], [0.6, 0.5, 0], [0.2, 0.9, 0]],
    "up": [[0.1, 0.6, 0.5], [0.7, 0.2, 0.9], [0, 0, 0]],
    "right": [[0, 0.3, 0.4], [0, 0.1, 0.6], [0, 0.7, 0.2]],
    "down": [[0, 0, 0], [0.3, 0.4, 0.8], [0.1, 0.6, 0.5]],
}


@pytest.mark.parametrize(("border", "figure"), [("flat", FIGURE), ("zeros", ZEROS)])
def test_directions_are_those_of_the_figure(border: Border, figure: dict) -> None:
    shifted = address_shift(IMAGE.expand(1, 4, 3, 3), border)[0]
    for result, expected in zip(shifted, figure.values(), strict=True):
        known = ~torch.tensor(expected).isnan()
        assert torch.equal(result[known], torch.tensor(expected)[known])


def test_flat_borders_hold_the_neighbouring_channels_never_another_image() -> None:
    x = torch.arange(2 * 4 * 6.0).view(2, 4, 2, 3)
    left, up, right, down = address_shift(x)[1]
    assert left[-1, -1] == x[1, 1, 0, 0]
    assert torch.equal(up[-1], x[1, 2, 0])
    assert right[0, 0] == x[1, 1, -1, -1]
    assert torch.equal(down[0], x[1, 2, -1])


def test_borders_alone_tell_the_modes_apart() -> None:
    x = torch.randn(2, 8, 7, 6)
    flat, zeros = address_shift(x), address_shift(x, "zeros")
    assert torch.equal(flat[:, :, 1:-1, 1:-1], zeros[:, :, 1:-1, 1:-1])
    assert not torch.equal(flat, zeros)


def flat_by_hand(x: torch.Tensor, first_channel: int) -> torch.Tensor:
    """Roll the channels, then every quarter of the flattened image, one element at a time."""
    rolled = x.roll(-first_channel, 1)
    y = torch.empty_like(x)
    _, channels, height, width = x.shape
    total = channels * height * width
    for image, source in zip(y.view(len(x), -1), rolled.flatten(1), strict=True):
        for p in range(total):
            offset = (1, width, -1, -width)[p * 4 // total]
            image[p] = source[(p + offset) % total]
    return y


@pytest.mark.parametrize("first_channel", [0, 1, 4])
def test_flat_shift_equals_offsets_element_by_element(first_channel: int) -> None:
    x = torch.randn(2, 8, 3, 4)
    assert torch.equal(address_shift(x, first_channel=first_channel), flat_by_hand(x, first_channel))


@pytest.mark.parametrize("border", ["flat", "zeros"])
@pytest.mark.parametrize("channel_shift", [False, True])
@pytest.mark.parametrize(("groups", "batch", "stride"), [(4, 1, 1), (4, 3, 1), (8, 2, 1), (2, 2, 1), (4, 2, 2)])
def test_folded_operator_equals_shifting_first(
    border: Border, channel_shift: bool, groups: int, batch: int, stride: int
) -> None:
    operator = AddressPointwise2d(
        16, 240, groups, stride, bias=batch > 1, border=border, channel_shift=channel_shift
    ).double()
    x = torch.randn(batch, 16, 23, 24, dtype=torch.float64)
    first = 8 // groups if channel_shift else 0
    shifted = flat_by_hand(x, first) if border == "flat" else AddressShift2d(16, "zeros")(x.roll(-first, 1))
    expected = F.conv2d(shifted, operator.conv.weight, operator.conv.bias, stride, groups=groups)
    assert_close(operator(x), expected, rtol=1e-12, atol=1e-12)
    if stride == 1 and groups % 4 == 0:
        operator.conv.register_forward_hook(lambda *_: pytest.fail("the shift was carried out"))
    with torch.inference_mode():
        assert_close(operator(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("border", ["flat", "zeros"])
def test_inference_in_parts_equals_shifting_first(border: Border) -> None:
    operator = AddressPointwise2d(128, 192, 4, border=border)
    x = torch.randn(9, 128, 11, 12)
    expected = operator(x)
    operator.conv.register_forward_hook(lambda *_: pytest.fail("all images were shifted at once"))
    with torch.inference_mode():
        assert_close(operator(x), expected, rtol=1e-4, atol=1e-5)


def test_a_depthwise_convolution_that_is_a_shift_is_recognised() -> None:
    assert AddressShift2d.from_dense(AddressShift2d(8, "zeros").dense()).border == "zeros"
    with pytest.raises(UserError, match="AddressShift2d"):
        AddressShift2d.from_dense(nn.Conv2d(8, 8, 3, padding=1, groups=8))


def test_fit_keeps_one_tap_a_direction() -> None:
    conv = nn.Conv2d(16, 8, 3, padding=1, dtype=torch.float64)
    kept = AddressPointwise2d.from_dense(conv).dense().weight
    inside = kept != 0
    assert inside.sum() == 8 * 4
    assert torch.equal(kept[inside], conv.weight[inside])
    with pytest.raises(UserError, match="`conv` must have 3 x 3"):
        AddressPointwise2d.from_dense(nn.Conv2d(8, 8, 1))


@pytest.mark.parametrize("border", ["flat", "zeros"])
def test_exported_graph_scatters_nothing(border: Border) -> None:
    operator = AddressPointwise2d(8, 8, border=border).eval()
    program = torch.export.export(operator, (torch.randn(2, 8, 16, 16),))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("cat" in name for name in called)
    assert not any(word in name for name in called for word in ("scatter", "copy_", "index_put"))


def test_shortcut_lies_beside_the_result() -> None:
    x, y = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    both = shortcut_shift(x, y)
    assert torch.equal(both[:, :3], x)
    assert torch.equal(both[:, 3:], y)


def test_flat_borders_equal_no_convolution() -> None:
    for operator in (AddressShift2d(8), AddressPointwise2d(8, 8)):
        with pytest.raises(UserError, match="`border='zeros'` would work"):
            operator.dense()


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: AddressShift2d(6), "`in_channels` must be a multiple of 4, .* got 6; 4 would work"),
        (lambda: AddressShift2d(8, "wrap"), "`border`"),
        (lambda: AddressPointwise2d(8, 8, 3), "`groups`"),
        (lambda: AddressPointwise2d(12, 12, 4), "`groups` times two"),
        (lambda: AddressPointwise2d(8, 8, stride=(1, 2)), "`stride`"),
    ],
)
def test_wrong_arguments_are_named(build, named: str) -> None:
    with pytest.raises(UserError, match=named):
        build()
