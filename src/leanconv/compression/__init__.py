"""Make trained networks smaller: fitted factorisations, layer by layer, exact where nothing is cut."""

from leanconv.compression.composite import compose, merge_pointwise
from leanconv.compression.conversion import Conversion, convert
from leanconv.compression.factorisations import (
    CP,
    ChannelDecomposition,
    Decoupled,
    DepthwiseDecomposition,
    NetworkDecoupling,
    SpatialSVD,
    TensorTrain,
    Tucker,
)
from leanconv.compression.methods import METHODS, Method
from leanconv.compression.record import LayerRecord, Record

__all__ = [
    "CP",
    "METHODS",
    "ChannelDecomposition",
    "Conversion",
    "Decoupled",
    "DepthwiseDecomposition",
    "LayerRecord",
    "Method",
    "NetworkDecoupling",
    "Record",
    "SpatialSVD",
    "TensorTrain",
    "Tucker",
    "compose",
    "convert",
    "merge_pointwise",
]
