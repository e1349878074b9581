"""Operators: structured factorisations of dense convolutions, one a file."""

from leanconv.ops.axial import AxialConv1d, AxialConv2d, AxialConv3d
from leanconv.ops.channel_attention import ChannelAttention
from leanconv.ops.eca import ECA, UnsharedECA, adaptive_kernel_size
from leanconv.ops.separable import (
    DepthwiseSeparableConv1d,
    DepthwiseSeparableConv2d,
    DepthwiseSeparableConv3d,
)
from leanconv.ops.squeeze_excitation import SqueezeExcitation
from leanconv.ops.structured import OPERATORS, StructuredConv

__all__ = [
    "ECA",
    "OPERATORS",
    "AxialConv1d",
    "AxialConv2d",
    "AxialConv3d",
    "ChannelAttention",
    "DepthwiseSeparableConv1d",
    "DepthwiseSeparableConv2d",
    "DepthwiseSeparableConv3d",
    "SqueezeExcitation",
    "StructuredConv",
    "UnsharedECA",
    "adaptive_kernel_size",
]
