"""Convolutional networks that are small and really faster.

The public verbs live here and are imported when first used, so that ``import leanconv`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from leanconv.comparison import compare
    from leanconv.compression import (
        CP,
        ChannelDecomposition,
        Decoupled,
        DepthwiseDecomposition,
        NetworkDecoupling,
        SpatialSVD,
        TensorTrain,
        Tucker,
        compress,
        convert,
    )
    from leanconv.data import load as load_data
    from leanconv.deployment import export, fold, load, save
    from leanconv.errors import UserError
    from leanconv.measurement import measure
    from leanconv.models import create_model, list_models
    from leanconv.receptive import optimize, receptive_field
    from leanconv.training import evaluate, load_recipe, train
    from leanconv.upscaling import Upscaler, upscale

_HOMES = {
    "CP": ("leanconv.compression", "CP"),
    "ChannelDecomposition": ("leanconv.compression", "ChannelDecomposition"),
    "Decoupled": ("leanconv.compression", "Decoupled"),
    "DepthwiseDecomposition": ("leanconv.compression", "DepthwiseDecomposition"),
    "NetworkDecoupling": ("leanconv.compression", "NetworkDecoupling"),
    "SpatialSVD": ("leanconv.compression", "SpatialSVD"),
    "TensorTrain": ("leanconv.compression", "TensorTrain"),
    "Tucker": ("leanconv.compression", "Tucker"),
    "Upscaler": ("leanconv.upscaling", "Upscaler"),
    "UserError": ("leanconv.errors", "UserError"),
    "compare": ("leanconv.comparison", "compare"),
    "compress": ("leanconv.compression", "compress"),
    "convert": ("leanconv.compression", "convert"),
    "create_model": ("leanconv.models", "create_model"),
    "evaluate": ("leanconv.training", "evaluate"),
    "export": ("leanconv.deployment", "export"),
    "fold": ("leanconv.deployment", "fold"),
    "list_models": ("leanconv.models", "list_models"),
    "load": ("leanconv.deployment", "load"),
    "load_data": ("leanconv.data", "load"),
    "load_recipe": ("leanconv.training", "load_recipe"),
    "measure": ("leanconv.measurement", "measure"),
    "optimize": ("leanconv.receptive", "optimize"),
    "receptive_field": ("leanconv.receptive", "receptive_field"),
    "save": ("leanconv.deployment", "save"),
    "train": ("leanconv.training", "train"),
    "upscale": ("leanconv.upscaling", "upscale"),
}

__all__ = [
    "CP",
    "ChannelDecomposition",
    "Decoupled",
    "DepthwiseDecomposition",
    "NetworkDecoupling",
    "SpatialSVD",
    "TensorTrain",
    "Tucker",
    "Upscaler",
    "UserError",
    "compare",
    "compress",
    "convert",
    "create_model",
    "evaluate",
    "export",
    "fold",
    "list_models",
    "load",
    "load_data",
    "load_recipe",
    "measure",
    "optimize",
    "receptive_field",
    "save",
    "train",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'leanconv' has no attribute {name!r}")
    home, attribute = _HOMES[name]
    value = getattr(import_module(home), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
