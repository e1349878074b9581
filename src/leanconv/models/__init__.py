"""Networks, one family a file, built by name."""

from leanconv.models import (
    antnet,
    eca_net,
    imagenet_resnet,
    mobilenet,
    mobilenet_v1,
    mobilenet_v2,
    ran,
    resnet,
    se_resnet,
    shufflenet,
    squeezenext,
    wide_resnet,
)
from leanconv.models.zoo import MODELS, ModelEntry, create_model, list_models, register_model

__all__ = [
    "MODELS",
    "ModelEntry",
    "antnet",
    "create_model",
    "eca_net",
    "imagenet_resnet",
    "list_models",
    "mobilenet",
    "mobilenet_v1",
    "mobilenet_v2",
    "ran",
    "register_model",
    "resnet",
    "se_resnet",
    "shufflenet",
    "squeezenext",
    "wide_resnet",
]
