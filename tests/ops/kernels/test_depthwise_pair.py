"""The kernel of two depthwise convolutions computes what they compute."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from leanconv.ops.kernels import depthwise_pair as module
from leanconv.ops.kernels.depthwise_pair import DepthwisePair, pairable

INFINITY = float("inf")


def convolutions(channels: int, taps: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    high = nn.Conv2d(channels, channels, (taps, 1), padding=(taps // 2, 0), groups=channels)
    wide = nn.Conv2d(channels, channels, (1, taps), padding=(0, taps // 2), groups=channels)
    return high.requires_grad_(False), wide.requires_grad_(False)


def in_float64(pair: DepthwisePair, x: Tensor) -> Tensor:
    high, wide = (copy.deepcopy(conv).double() for conv in (pair.high, pair.wide))
    y: Tensor = wide(high(x.double()))
    return y if pair.upper == 0 else y.clamp(0, pair.upper)


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 5),
    channels=st.integers(16, 70),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    taps=st.sampled_from([3, 5, 7, 9]),
    upper=st.sampled_from([0.0, 6.0, INFINITY]),
    last=st.booleans(),
    threads=st.sampled_from([1, 2]),
)
def test_equals_both_convolutions(
    images: int, channels: int, height: int, width: int, taps: int, upper: float, last: bool, threads: int
) -> None:
    torch.manual_seed(0)
    pair = DepthwisePair(*convolutions(channels, taps), upper)
    x = torch.randn(images, channels, height, width)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = pair(x)
    finally:
        torch.set_num_threads(before)
    # Sums of at most 18 products of float32 numbers of about 1.
    assert_close(y.double(), in_float64(pair, x), rtol=1e-5, atol=1e-5)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_is_rounded_once() -> None:
    pair = DepthwisePair(*convolutions(40, 5), INFINITY).bfloat16()
    x = torch.randn(2, 40, 9, 11, dtype=torch.bfloat16)
    assert_close(pair(x).double(), in_float64(pair, x), rtol=2**-8, atol=1e-5)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Sizes of what the kernel, or what stands in for it, was called with."""
    sizes: list[torch.Size] = []
    compute = module._compute

    def counted(x: Tensor, *rest: Any) -> Tensor:
        sizes.append(x.shape)
        return compute(x, *rest)

    monkeypatch.setattr(module, "_compute", counted)
    return sizes


def test_what_needs_gradients_is_computed_by_torch(calls: list[torch.Size]) -> None:
    pair = DepthwisePair(*convolutions(16, 3), INFINITY)
    x = torch.randn(2, 16, 5, 6, dtype=torch.float32, requires_grad=True)
    y = pair(x)
    assert not calls
    y.sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        assert_close(pair(x), y.detach())
    assert len(calls) == 1
    pair.wide.bias.requires_grad_(True)
    pair(x.detach()).sum().backward()
    assert pair.wide.bias.grad is not None
    assert len(calls) == 1


def test_other_types_and_calls_are_computed_by_torch(calls: list[torch.Size]) -> None:
    pair = DepthwisePair(*convolutions(16, 3), 6.0)
    x = torch.randn(2, 16, 5, 6)
    expected = pair(x)
    assert len(calls) == 1
    assert_close(pair(x[0]), expected[0])  # without a batch
    assert_close(copy.deepcopy(pair).double()(x.double()).float(), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert pair(x).dtype == torch.bfloat16
    assert len(calls) == 1
    with pytest.raises(RuntimeError, match="channels"):
        pair(torch.randn(2, 17, 5, 6))


def test_without_a_kernel_torch_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = DepthwisePair(*convolutions(16, 3), INFINITY)
    x = torch.randn(2, 16, 5, 6)
    expected = pair(x)
    monkeypatch.setattr(module, "library", lambda: None)
    assert_close(pair(x), expected, rtol=1e-5, atol=1e-6)
    assert pair(x[:0]).shape == (0, 16, 5, 6)


def test_an_empty_batch() -> None:
    assert DepthwisePair(*convolutions(16, 3))(torch.randn(0, 16, 5, 6)).shape == (0, 16, 5, 6)


def test_compilers_and_exporters_see_two_convolutions() -> None:
    pair = DepthwisePair(*convolutions(16, 3), INFINITY).eval()
    x = torch.randn(2, 16, 5, 6)
    program = torch.export.export(pair, (x,))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets == ["aten.conv2d.default", "aten.conv2d.default", "aten.relu.default"]
    compiled = torch.compile(pair, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert_close(compiled(x), pair(x), rtol=1e-5, atol=1e-6)


def test_as_an_operator_of_torch() -> None:
    high, wide = convolutions(16, 3)
    x = torch.randn(2, 16, 5, 6)
    arguments = (x, high.weight, high.bias, wide.weight, wide.bias, 6.0)
    torch.library.opcheck(
        torch.ops.leanconv.depthwise_pair.default, arguments, test_utils=("test_schema", "test_faketensor")
    )
    with FlopCounterMode(display=False) as counter:
        DepthwisePair(high, wide)(x)
    assert counter.get_total_flops() == 2 * 2 * 3 * x.numel()


@pytest.mark.parametrize(
    "change",
    [
        {"stride": 2},
        {"dilation": 2},
        {"padding": 0},
        {"padding_mode": "circular"},
        {"bias": False},
        {"groups": 8},
        {"dtype": torch.float64},
    ],
)
def test_what_is_no_pair(change: dict[str, Any]) -> None:
    high, wide = convolutions(16, 3)
    assert pairable(high, wide)
    assert not pairable(wide, high)
    assert not pairable(high, nn.Identity())
    arguments: dict[str, Any] = {"kernel_size": (1, 3), "padding": (0, 1), "groups": 16, **change}
    assert not pairable(high, nn.Conv2d(16, 16, **arguments))
