"""Operators: structured factorisations of dense convolutions, one a file."""

from leanconv.ops.axial import AxialConv1d, AxialConv2d, AxialConv3d
from leanconv.ops.separable import (
    DepthwiseSeparableConv1d,
    DepthwiseSeparableConv2d,
    DepthwiseSeparableConv3d,
)
from leanconv.ops.structured import OPERATORS, StructuredConv

__all__ = [
    "OPERATORS",
    "AxialConv1d",
    "AxialConv2d",
    "AxialConv3d",
    "DepthwiseSeparableConv1d",
    "DepthwiseSeparableConv2d",
    "DepthwiseSeparableConv3d",
    "StructuredConv",
]
