"""Networks, one family a file, built by name."""

from leanconv.models import mobilenet, ran, resnet, squeezenext
from leanconv.models.zoo import MODELS, ModelEntry, create_model, list_models, register_model

__all__ = [
    "MODELS",
    "ModelEntry",
    "create_model",
    "list_models",
    "mobilenet",
    "ran",
    "register_model",
    "resnet",
    "squeezenext",
]
