"""The 3-D receptive field as a number, and the rule that says which kernels may replace a convolution.

Wang, Feng, Peng and Ding, 2021, arXiv 2009.05236: the portion of its input tensor that can flow into a neuron.  A
block may replace a standard convolution only if its portion is as large ("quality") and if it would be smaller
without any one of its components ("compactness").  Averaging over outputs, and taking an output in the middle of the
image, are our reading; they reproduce every figure known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from leanconv.errors import UserError
from leanconv.receptive.field import see_source
from leanconv.receptive.tracing import shape_of, trace


def portion(model: nn.Module, input_size: Sequence[int]) -> float:
    """Return the share of an input tensor that reaches a central output, averaged over output channels.

    The product of the exact shares along the axes and of the channels.

    Args:
        model: A block, stage or network with one output.
        input_size: Batch, channels and spatial lengths of the tensor that enters it.

    Raises:
        UserError: As :func:`~leanconv.receptive.receptive_field` does, or there is not one output.

    Example:
        >>> portion(nn.Conv2d(64, 64, 3, padding=1), (1, 64, 16, 16)) == 9 / 256
        True
    """
    traced = trace(model, input_size)
    shapes = [shape_of(output) for output in traced.outputs]
    if len(shapes) != 1 or len(shapes[0]) not in (2, traced.axes + 2):
        raise UserError(f"`model` must return one image or one vector, got shapes {shapes}; its last stage would work.")
    (output,) = traced.outputs
    return see_source(traced, traced.source, traced.nodes, {output}, set())[output].portion()


def stacked_portion(kernels: int, resolution: Sequence[int], taps: int = 3) -> float:
    """Return the portion of a stack of dense convolutions of stride 1 in a stage of some resolution.

    Args:
        kernels: Convolutions.
        resolution: Spatial lengths.
        taps: Of each kernel, along each axis.
    """
    return math.prod(min(1 + (taps - 1) * kernels, length) / length for length in resolution)


def saturating_kernels(resolution: Sequence[int], taps: int = 3) -> int:
    """Return after how many dense convolutions of stride 1 a central output sees a whole stage, at least one."""
    return max(1, math.ceil((max(resolution) - 1) / (taps - 1)))


@dataclass(frozen=True)
class KernelVerdict:
    """Whether a block may replace a convolution.

    Attributes:
        portion: Of the block, or of so many blocks stacked.
        standard: Of as many standard convolutions.
        portions_without: The portion if one component were dropped, for each of them.
    """

    portion: float
    standard: float
    portions_without: tuple[float, ...]

    @property
    def keeps_quality(self) -> bool:
        """Whether the block sees all that the standard convolution sees."""
        return self.portion >= self.standard

    @property
    def is_compact(self) -> bool:
        """Whether every component is needed for what the block sees."""
        return all(without < self.portion for without in self.portions_without)

    @property
    def may_replace(self) -> bool:
        """Whether both hold."""
        return self.keeps_quality and self.is_compact


def kernel_rule(
    components: Sequence[nn.Module], standard: nn.Module, input_size: Sequence[int], *, blocks: int = 1
) -> KernelVerdict:
    """Judge a block that shall replace a standard convolution.

    Args:
        components: The block's layers in order; each must keep the number of channels, so that it can be dropped and
            the block be stacked.
        standard: The convolution.
        input_size: Batch, channels and spatial lengths of the tensor that enters.
        blocks: How many are stacked, on both sides.

    Raises:
        UserError: There are no components, ``blocks`` is below 1, or they cannot be stacked on this input.
    """
    if not components or blocks < 1:
        raise UserError(
            f"`components` and `blocks` must be at least one each, got {len(components)} and {blocks}; "
            "a depthwise and a pointwise convolution would work."
        )

    def stacked(parts: Sequence[nn.Module]) -> float:
        return portion(nn.Sequential(*(list(parts) * blocks)), input_size)

    without = tuple(
        stacked([*components[:index], *components[index + 1 :]]) if len(components) > 1 else 0.0
        for index in range(len(components))
    )
    return KernelVerdict(stacked(components), stacked([standard]), without)
