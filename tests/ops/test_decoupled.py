from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import BalancedDecoupledConv2d, DecoupledConv1d, DecoupledConv2d, DecoupledConv3d
from leanconv.ops.structured import CONV

FORMS = {1: DecoupledConv1d, 2: DecoupledConv2d, 3: DecoupledConv3d}


@settings(max_examples=25, deadline=None)
@given(
    dims=st.integers(1, 3),
    kernel=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    stride=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    dilation=st.integers(1, 2),
)
def test_any_convolution_is_decoupled_exactly(
    dims: int, kernel: list[int], groups: int, bias: bool, mode: str, stride: list[int], dilation: int
) -> None:
    size = tuple(kernel[:dims])
    conv = CONV[dims](
        4, 6, size, tuple(stride[:dims]), 2, dilation, groups, bias, padding_mode=mode, dtype=torch.float64
    )
    decoupled = FORMS[dims].from_dense(conv)
    x = torch.randn(2, 4, *[6, 7, 5][:dims], dtype=torch.float64)
    assert_close(decoupled(x), conv(x), rtol=1e-12, atol=1e-12)


def test_trained_weights_are_reordered_position_first() -> None:
    """P = W.permute(2, 3, 0, 1).reshape(k k C_out, C_in, 1, 1), and a sum of shifted maps."""
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=False, dtype=torch.float64)
    decoupled = DecoupledConv2d.from_dense(conv)
    expected = conv.weight.permute(2, 3, 0, 1).reshape(45, 3, 1, 1)
    assert torch.equal(decoupled.across.weight, expected)
    x = torch.randn(1, 3, 6, 7, dtype=torch.float64)
    maps = F.pad(F.conv2d(x, expected), (1, 1, 1, 1)).view(3, 3, 5, 8, 9)
    total = sum(maps[i, j, :, i : i + 6, j : j + 7] for i in range(3) for j in range(3))
    assert_close(decoupled(x), total.unsqueeze(0))


def test_same_padding_of_even_kernels() -> None:
    conv = nn.Conv2d(3, 4, (4, 2), padding="same", dtype=torch.float64)
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    assert_close(DecoupledConv2d.from_dense(conv)(x), conv(x))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_inputs_without_a_batch_are_taken_as_by_torch(mode: str) -> None:
    conv = nn.Conv2d(4, 6, 3, 2, 1, groups=2, padding_mode=mode, dtype=torch.float64)
    x = torch.randn(4, 6, 7, dtype=torch.float64)
    assert_close(DecoupledConv2d.from_dense(conv)(x), conv(x))


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_adaptive_configuration_bends_all_maps_but_the_centre_one(slope: float) -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1, groups=1, dtype=torch.float64)
    bent = DecoupledConv2d.from_dense(conv, negative_slope=slope)
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    total = conv.bias.view(1, -1, 1, 1) + torch.zeros(2, 5, 6, 7, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            weight = torch.zeros_like(conv.weight)
            weight[:, :, i, j] = conv.weight[:, :, i, j]
            seen = F.conv2d(x, weight, padding=1)
            total = total + (seen if i == j == 1 else F.leaky_relu(seen, slope))
    assert_close(bent(x), total)
    with pytest.raises(UserError, match="negative_slope"):
        bent.dense()


def test_weights_start_with_the_fan_in_of_the_whole_convolution() -> None:
    op = DecoupledConv2d(64, 64, 3)
    assert op.across.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert not op.bias.any()


def test_too_small_an_input_is_refused() -> None:
    with pytest.raises(UserError, match="`x` with its padding must cover the kernel"):
        DecoupledConv2d(3, 4, 5)(torch.zeros(1, 3, 4, 9))


@pytest.mark.parametrize(
    ("channels", "rank", "ratio"),
    [(64, 1, 0.127), (64, 2, 0.253), (64, 3, 0.380), (256, 1, 0.115), (256, 2, 0.230), (256, 3, 0.345)],
)
def test_balanced_form_costs_what_the_formula_says(channels: int, rank: int, ratio: float) -> None:
    op = BalancedDecoupledConv2d(channels, 32, 3, rank=rank, bias=False)
    parameters = sum(p.numel() for p in op.parameters())
    assert parameters == rank * 32 * (channels + 9)
    assert parameters / (9 * channels * 32) == pytest.approx(ratio, abs=1e-3)


@pytest.mark.parametrize("groups", [1, 2])
def test_balanced_form_is_exact_at_full_rank(groups: int) -> None:
    conv = nn.Conv2d(24, 6, 3, 2, 1, groups=groups, padding_mode="reflect", dtype=torch.float64)
    op = BalancedDecoupledConv2d.from_dense(conv)
    assert op.rank == 9
    x = torch.randn(2, 24, 9, 8, dtype=torch.float64)
    assert_close(op(x), conv(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rank", "error"), [(1, 0.84), (2, 0.70), (3, 0.57), (4, 0.44)])
def test_balanced_fit_leaves_the_other_singular_values_of_each_output(rank: int, error: float) -> None:
    conv = nn.Conv2d(12, 200, 3, bias=False, dtype=torch.float64)
    op = BalancedDecoupledConv2d.from_dense(conv, rank=rank)
    left = (op.dense().weight - conv.weight).norm()
    expected = torch.linalg.svdvals(conv.weight.flatten(2))[:, rank:].square().sum().sqrt()
    assert_close(left, expected)
    assert (left / conv.weight.norm()).item() == pytest.approx(error, abs=0.015)


def test_rank_one_is_pointwise_then_depthwise() -> None:
    op = BalancedDecoupledConv2d(8, 6, 3, padding=1)
    assert (op.across.kernel_size, op.aggregate.groups, op.aggregate.in_channels) == ((1, 1), 6, 6)


@pytest.mark.parametrize("kernel", [3, (2, 5)])
def test_relu_between_the_steps_leaves_the_centre_tap_linear(kernel: Any) -> None:
    op = BalancedDecoupledConv2d(4, 6, kernel, 2, 1, rank=2, negative_slope=0.1, padding_mode="circular").double()
    x = torch.randn(2, 4, 8, 9, dtype=torch.float64)
    maps = op.across(x)
    plain, centre = (nn.Conv2d(12, 6, kernel, 2, 1, groups=6, padding_mode="circular").double() for _ in range(2))
    plain.load_state_dict(op.aggregate.state_dict())
    nn.init.zeros_(centre.weight)
    rows, columns = (size // 2 for size in op.aggregate.kernel_size)
    centre.weight.data[:, :, rows, columns] = op.aggregate.weight.data[:, :, rows, columns]
    nn.init.zeros_(centre.bias)
    plain.weight.data -= centre.weight.data
    assert_close(op(x), plain(F.leaky_relu(maps, 0.1)) + centre(maps))
    with pytest.raises(UserError, match="negative_slope"):
        op.dense()


@pytest.mark.parametrize(
    "op", [DecoupledConv2d(4, 6, 3, negative_slope=0.1), BalancedDecoupledConv2d(4, 6, 3, rank=2, negative_slope=0.1)]
)
def test_nonlinear_forms_are_captured_and_trained(op: nn.Module) -> None:
    x = torch.randn(2, 4, 6, 7)
    exported = torch.export.export(op.eval(), (x,)).module()
    assert_close(exported(x), op(x))
    assert_close(torch.compile(op, fullgraph=True, backend="aot_eager")(x), op(x))
    op(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in op.parameters())


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"rank": 0}, "`rank`"),
        ({"rank": 1.5}, "`rank`"),
        ({"groups": 3}, "`groups`.*2 would work"),
        ({"kernel_size": (3, 3, 3)}, "`kernel_size`"),
        ({"padding": "full"}, "`padding`"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        BalancedDecoupledConv2d(**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, **kwargs})
    if "rank" not in kwargs:
        with pytest.raises(UserError, match=said):
            DecoupledConv2d(**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, **kwargs})
