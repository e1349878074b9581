"""What layers cost on a target, so that folding never makes one dearer.

Most of what is folded moves memory and multiplies little: the time of a depthwise convolution is a pass over memory
plus its multiply-accumulates, at a price that differs from engine to engine.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leanconv.errors import UserError, nearest
from leanconv.ops.affine import Layout

#: Seconds that a module takes on inputs.
Timing = Callable[[nn.Module, tuple[Tensor, ...]], float]


@dataclass(frozen=True)
class Prices:
    """Times an element, as parts of what a depthwise convolution takes to read and write one.

    Fitted to times of depthwise 3x3 and 7x7 convolutions, pairs of 1-D ones with their norms folded, and pointwise
    convolutions on 120 to 960 channels of 56x56 to 4x4, one thread.  A map that is added at the borders takes away more
    than one 3x3 kernel instead of a pair brings, but not what one strided kernel brings.

    Attributes:
        border: To add a map that differs along one axis to one element.
        elementwise: To read and write one element in a sum, a pool or a batch norm.
        depthwise: The same in a depthwise or grouped convolution.
        axial: The same in one that acts along one of several axes.
        dense: The same in a convolution that mixes all channels.
        depthwise_mac: A multiply-accumulate of a depthwise or grouped convolution.
        dense_mac: One of a convolution that mixes all channels.
    """

    border: float
    elementwise: float
    depthwise: float
    axial: float
    dense: float
    depthwise_mac: float
    dense_mac: float

    def conv(self, layout: Layout, area: float) -> float:
        """Return the cost of a convolution for so many samples read of each channel."""
        after = area / math.prod(layout.stride)
        macs = after * layout.out_channels * layout.in_channels / layout.groups * math.prod(layout.kernel)
        elements = (area * layout.in_channels + after * layout.out_channels) / 2
        if layout.groups == 1:
            return self.dense * elements + self.dense_mac * macs
        axial = layout.dims > 1 and sum(taps > 1 for taps in layout.kernel) == 1
        return (self.axial if axial else self.depthwise) * elements + self.depthwise_mac * macs

    def passes(self, read: float, written: float) -> float:
        """Return the cost of an operation without weights that reads and writes so many elements."""
        return self.elementwise * (read + written) / 2


#: Prices by target.  "torch" is eager PyTorch on a CPU.
TARGETS: dict[str, Prices] = {
    "torch": Prices(1.0, 0.35, 1.0, 0.87, 0.3, 0.06, 0.035),
    "onnxruntime": Prices(0.5, 0.4, 1.0, 0.58, 0.3, 0.015, 0.015),
    "openvino": Prices(0.15, 0.4, 1.0, 0.58, 0.3, 0.034, 0.017),
}


def target_of(engine: str) -> str:
    """Return the target whose prices an engine has."""
    return engine if engine in TARGETS else "torch"


def prices_for(target: str) -> Prices:
    """Return the prices of a target.

    Raises:
        UserError: It is unknown.
    """
    if target not in TARGETS:
        raise UserError(f"`target` {target!r} is unknown: {nearest(target, TARGETS)}")
    return TARGETS[target]


class Sum(nn.Module):
    """Adds two tensors."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``x + y``, broadcast."""
        return x + y


@dataclass(frozen=True)
class Part:
    """One layer of what is compared.

    Attributes:
        module: Builds it.
        price: Its price from the table.
        inputs: Shapes of what it reads, where the size of the network's input is known.
    """

    module: Callable[[], nn.Module]
    price: float
    inputs: tuple[tuple[int, ...] | None, ...] = ()


def total(parts: Sequence[Part], timing: Timing | None) -> float:
    """Return what parts cost together: measured where there is a timing, else the sum of their prices."""
    if timing is None:
        return sum(part.price for part in parts)
    return sum(_measured(part, timing) for part in parts)


@torch.no_grad()
def _measured(part: Part, timing: Timing) -> float:
    module = part.module().eval()
    like = next(iter(module.parameters()), torch.empty(0))
    inputs = tuple(torch.randn(shape or (), dtype=like.dtype, device=like.device) for shape in part.inputs)
    return timing(module, inputs)
