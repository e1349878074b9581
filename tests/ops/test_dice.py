from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from leanconv.errors import UserError
from leanconv.ops import DiCE, DimConv, DimFuse
from leanconv.ops.dice import conv_by_column, conv_by_row
from reference_operators import AuthorsDiCE, authors_weights


def pair(in_channels: int, out_channels: int, size: tuple[int, int]) -> tuple[DiCE, AuthorsDiCE]:
    """A unit with statistics and slopes unlike those of a fresh one, and the authors' form with the same weights."""
    ours, theirs = DiCE(in_channels, out_channels, size), AuthorsDiCE(in_channels, out_channels, *size)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
        elif isinstance(module, nn.PReLU):
            nn.init.normal_(module.weight, 0.25, 0.2)
    theirs.load_state_dict(authors_weights(ours))
    return ours, theirs


def by_definition(x: Tensor, weight: Tensor, axes: tuple[int, int], kernel_axis: int) -> Tensor:
    """Sum over shifted copies of the image; the kernel's taps lie along ``axes``, one kernel for each index."""
    reach = weight.shape[-1] // 2
    shape = [1, 1, 1, 1]
    shape[kernel_axis] = -1
    y = torch.zeros_like(x)
    for first in range(-reach, reach + 1):
        for second in range(-reach, reach + 1):
            shifted = x
            for axis, step in zip(axes, (first, second), strict=True):
                index = torch.arange(x.shape[axis]) + step
                inside = (index >= 0) & (index < x.shape[axis])
                shifted = shifted.index_select(axis, index.clamp(0, x.shape[axis] - 1)).movedim(axis, -1) * inside
                shifted = shifted.movedim(-1, axis)
            y += weight[:, 0, first + reach, second + reach].view(shape) * shifted
    return y


@pytest.mark.parametrize("taps", [1, 3, 5])
@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (1, 3, 1, 4), (2, 4, 6, 1), (3, 1, 2, 2)])
def test_rows_and_columns_have_kernels_of_their_own(shape: tuple[int, ...], taps: int) -> None:
    """Rows: taps along channels and width.  Columns: taps along height and channels."""
    x = torch.randn(shape, dtype=torch.float64)
    rows = torch.randn(shape[2], 1, taps, taps, dtype=torch.float64)
    columns = torch.randn(shape[3], 1, taps, taps, dtype=torch.float64)
    assert_close(conv_by_row(x, rows), by_definition(x, rows, (1, 3), 2), rtol=1e-12, atol=1e-12)
    assert_close(conv_by_column(x, columns), by_definition(x, columns, (2, 1), 3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [(8, 8), (12, 18), (116, 116)])
@pytest.mark.parametrize("size", [(14, 14), (5, 9)])
def test_unit_equals_the_authors_form(channels: tuple[int, int], size: tuple[int, int]) -> None:
    ours, theirs = pair(*channels, size)
    x = torch.randn(2, channels[0], *size)
    assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert_close(ours(channels_last), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sides", [(7, 9), (3, 9), (7, 14), (11, 4), (1, 1)])
def test_maps_of_other_sizes_are_resampled_as_the_authors_do(sides: tuple[int, int]) -> None:
    ours, theirs = pair(8, 8, (7, 9))
    x = torch.randn(2, 8, *sides)
    assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)


def test_training_gives_the_authors_statistics_and_gradients() -> None:
    ours, theirs = (module.double() for module in pair(8, 12, (5, 6)))
    x = torch.randn(4, 8, 5, 6, dtype=torch.float64)
    for module in (ours, theirs):
        module(x).sin().sum().backward()
    expected = dict(theirs.named_parameters())
    for module in (ours, theirs):
        for parameter in module.parameters():
            parameter.data = parameter.grad
    for key, gradient in authors_weights(ours).items():
        found = expected[key] if key in expected else theirs.get_buffer(key)
        assert_close(gradient, found, rtol=1e-9, atol=1e-10, msg=key)


def test_gradients_match_finite_differences() -> None:
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(DiCE(4, 6, (3, 4)).double(), (x,), fast_mode=True)


@pytest.mark.parametrize(
    ("channels", "side", "params", "macs"),
    [
        ((16, 16), 28, 1_208, 489_344),
        ((24, 24), 28, 1_656, 734_112),
        ((24, 58), 28, 8_010, 5_475_948),
        ((58, 58), 28, 4_216, 1_775_032),
        ((64, 64), 56, 5_360, 7_829_504),
        ((64, 128), 28, 6_648, 2_411_520),
        ((116, 116), 14, 11_156, 893_432),
        ((128, 128), 28, 13_304, 3_921_920),
        ((232, 232), 7, 35_390, 470_264),
        ((256, 256), 14, 42_236, 1_989_632),
        ((512, 512), 7, 149_630, 1_109_504),
    ],
)
def test_counts_are_those_of_the_authors_code(channels: tuple[int, int], side: int, params: int, macs: int) -> None:
    """Calculated from sacmehta/EdgeNets, batch norm and slopes included, convolutions and linear layers counted."""
    with torch.device("meta"):
        unit = DiCE(*channels, side)
        with FlopCounterMode(display=False) as counter:
            unit(torch.empty(1, channels[0], side, side))
    assert sum(p.numel() for p in unit.parameters()) == params
    assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize("sides", [(5, 6), (8, 3)])
@pytest.mark.parametrize("transform", ["export", "compile"])
def test_graph_capture_keeps_the_result(transform: str, sides: tuple[int, int]) -> None:
    unit = DiCE(8, 12, (5, 6)).eval()
    x = torch.randn(2, 8, *sides)
    captured: Callable[[Tensor], Tensor]
    if transform == "export":
        captured = torch.export.export(unit, (x,)).module()
    else:
        torch.compiler.reset()
        captured = torch.compile(unit, fullgraph=True, backend="aot_eager")
    assert_close(captured(x), unit(x))


def test_state_dict_round_trip_and_meta_device() -> None:
    first, second = DiCE(8, 8, 6).eval(), DiCE(8, 8, 6).eval()
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 8, 6, 6)
    assert torch.equal(first(x), second(x))
    assert first.to("meta")(torch.empty(0, 8, 6, 9, device="meta")).shape == (0, 8, 6, 9)


def test_weights_start_from_the_fan_out() -> None:
    """He et al.'s normal, fan-out form: the rows' kernels are those of a convolution with as many outputs as rows."""
    unit = DiCE(400, 400, (300, 200))
    for weight, fan_out in (
        (unit.dim_conv.height_weight, 9 * 300),
        (unit.dim_conv.depth.weight, 9 * 400),
        (unit.dim_fuse.local_weight, 400),
        (unit.dim_fuse.squeeze.weight, 100),
    ):
        assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: DiCE(8, 8, (14, 0)), "`size`.* got"),
        (lambda: DiCE(8, 8, (14, 14, 14)), "`size`.* got"),
        (lambda: DiCE(0, 8, 14), "`in_channels`.* got 0"),
        (lambda: DimFuse(8, 0), "`out_channels`.* got 0"),
        (lambda: DimConv(8, 14, kernel_size=4), "`kernel_size` must be odd, got 4; 5 would work"),
        (lambda: DimConv(8, 14, kernel_size=-1), "`kernel_size`.* 1 would work"),
    ],
)
def test_wrong_arguments_are_named(build: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build()
