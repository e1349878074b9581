"""Make trained networks smaller: fitted factorisations, layer by layer, exact where nothing is cut."""

from leanconv.compression.composite import compose, merge_pointwise
from leanconv.compression.compressing import Compression, compress
from leanconv.compression.conversion import Conversion, convert
from leanconv.compression.low_rank_methods import CP, ChannelDecomposition, SpatialSVD, TensorTrain, Tucker
from leanconv.compression.methods import METHODS, Method
from leanconv.compression.plan import LayerPlan, Plan
from leanconv.compression.record import LayerRecord, Record
from leanconv.compression.recovery import reestimate_batch_norm
from leanconv.compression.separable_methods import Decoupled, DepthwiseDecomposition, NetworkDecoupling
from leanconv.compression.storage import load, save

__all__ = [
    "CP",
    "METHODS",
    "ChannelDecomposition",
    "Compression",
    "Conversion",
    "Decoupled",
    "DepthwiseDecomposition",
    "LayerPlan",
    "LayerRecord",
    "Method",
    "NetworkDecoupling",
    "Plan",
    "Record",
    "SpatialSVD",
    "TensorTrain",
    "Tucker",
    "compose",
    "compress",
    "convert",
    "load",
    "merge_pointwise",
    "reestimate_batch_norm",
    "save",
]
