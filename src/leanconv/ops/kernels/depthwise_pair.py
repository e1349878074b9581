"""Two depthwise convolutions, along the height and then along the width, as one operator of torch, for inference.

It is what folding leaves of a residual axial block: batch norms and residuals are in the kernels and their biases.  One
by one the two read and write all images twice; the compiled kernel does so once, on images whose channels lie last in
memory, and adds an activation for nothing.  Where it does not serve, torch's own operators compute the same.

Cost: ``2 k n`` MACs for ``k`` taps on ``n`` elements.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from leanconv.ops.kernels.channels_last import channels_last
from leanconv.ops.kernels.library import DTYPES, LANES, library

#: Taps of both that the kernel has loops for.
PAIR_TAPS = (3, 5, 7, 9)

torch.library.define(
    "leanconv::depthwise_pair",
    "(Tensor x, Tensor high, Tensor high_bias, Tensor wide, Tensor wide_bias, float upper) -> Tensor",
)


class _Size(ctypes.Structure):
    """What a call works on, as ``depthwise_pair.cpp`` has it."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "threads"))


class DepthwisePair(nn.Module):
    """Two depthwise convolutions of stride 1 that keep the size, padded with zeros, and an activation.

    In inference on a processor the compiled kernel computes both at once.  Images that have their channels first are
    rearranged for it: with that, it still took 0.23 to 0.65 of the time of PyTorch's best kernels for channels first (3
    and 7 taps, 1x64x56x56 to 16x960x4x4, one thread of an AMD EPYC).  The result has its channels last, so that in a
    network only the first pair rearranges.  With gradients, traced, exported or compiled, on other devices and in other
    types it is two convolutions of torch.

    Args:
        high: The first, kernel ``(k, 1)``; :func:`pairable` says which will do.
        wide: The second, kernel ``(1, k)``.
        upper: The result is clamped to 0 … upper: infinity for ReLU, 6 for ReLU6, 0 for no activation.

    Shapes:
        ``(N, C, H, W)`` to the same.
    """

    def __init__(self, high: nn.Conv2d, wide: nn.Conv2d, upper: float = 0.0) -> None:
        super().__init__()
        self.high, self.wide, self.upper = high, wide, upper

    def forward(self, x: Tensor) -> Tensor:
        """Apply both convolutions and the activation."""
        high, wide = self.high, self.wide
        weights = (high.weight, high.bias, wide.weight, wide.bias)
        if torch.compiler.is_compiling() or not isinstance(x, Tensor) or not _served(x, weights):
            return activated(wide(high(x)), self.upper)
        # Torch's way to an operator written in Python takes longer than small layers: it is for those who look on.
        looked_on = torch._C._len_torch_dispatch_stack() or torch._C._functorch.maybe_current_level() is not None
        function: Any = torch.ops.leanconv.depthwise_pair if looked_on or type(x) is not Tensor else _compute
        y: Tensor = function(x, *weights, self.upper)
        return y

    def extra_repr(self) -> str:
        """Return what the printed convolutions do not show."""
        return f"upper={self.upper:g}"


def pairable(high: nn.Module, wide: nn.Module) -> bool:
    """Whether two modules can be computed as a pair by the kernel: plain depthwise convolutions along one axis each."""
    kinds = [type(conv) is nn.Conv2d for conv in (high, wide)]
    if not all(kinds):
        return False
    assert isinstance(high, nn.Conv2d)
    assert isinstance(wide, nn.Conv2d)
    taps = high.kernel_size[0]
    return (
        taps in PAIR_TAPS
        and high.kernel_size == (taps, 1)
        and wide.kernel_size == (1, taps)
        and (high.padding, wide.padding) == ((taps // 2, 0), (0, taps // 2))
        and all(
            conv.groups == conv.in_channels == conv.out_channels == high.in_channels >= LANES
            and conv.stride == conv.dilation == (1, 1)
            and conv.padding_mode == "zeros"
            and conv.bias is not None
            and conv.weight.dtype == high.weight.dtype
            for conv in (high, wide)
        )
    )


def _served(x: Tensor, weights: Sequence[Tensor | None]) -> bool:
    weight = weights[0]
    return (
        weight is not None
        and x.is_cpu
        and x.dim() == 4
        and x.shape[1] == weight.shape[0]
        and x.dtype in DTYPES
        and weight.dtype == x.dtype
        and not torch._C._get_tracing_state()
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and any(leaf is not None and leaf.requires_grad for leaf in (x, *weights)))
    )


def activated(y: Tensor, upper: float) -> Tensor:
    """Return ``y`` clamped to 0 … upper, or as it is for 0."""
    if upper == 0:
        return y
    return F.relu(y) if upper == float("inf") else F.hardtanh(y, 0.0, upper)


def _compute(x: Tensor, high: Tensor, high_bias: Tensor, wide: Tensor, wide_bias: Tensor, upper: float) -> Tensor:
    images, channels, height, width = x.shape
    taps = high.shape[2]
    kernel = library() if x.is_cpu and x.dtype in DTYPES and channels >= LANES and taps in PAIR_TAPS else None
    if kernel is None or x.numel() == 0:
        y = F.conv2d(x, high, high_bias, padding=(taps // 2, 0), groups=channels)
        y = activated(F.conv2d(y, wide, wide_bias, padding=(0, taps // 2), groups=channels), upper)
        return y.contiguous(memory_format=torch.channels_last)
    x = channels_last(x)
    y = torch.empty_like(x)
    # Sums are in float32 whatever type images have, and so are weights.
    weights = [weight.float().contiguous() for weight in (high, high_bias, wide, wide_bias)]
    size = _Size(images, height, width, channels, torch.get_num_threads())
    function = getattr(kernel, f"depthwise_pair_{DTYPES[x.dtype]}")
    addresses = (x.data_ptr(), *(weight.data_ptr() for weight in weights))
    if function(taps, ctypes.byref(size), *addresses, upper, y.data_ptr()):
        raise AssertionError(f"the kernel has no loop for {taps} taps")
    return y


def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


torch.library.impl("leanconv::depthwise_pair", "CompositeExplicitAutograd", _compute)
torch.library.register_fake("leanconv::depthwise_pair", _fake)


@register_flop_formula(torch.ops.leanconv.depthwise_pair)
def _flops(_: torch.Size, high: torch.Size, *__: Any, out_shape: Sequence[int], **___: Any) -> int:
    return 2 * 2 * torch.Size(out_shape).numel() * high[2]
