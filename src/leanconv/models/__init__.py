"""Networks, one family a file, built by name."""

from leanconv.models import (
    antnet,
    eca_net,
    imagenet_resnet,
    mobilenet,
    mobilenet_v1,
    mobilenet_v2,
    ran,
    repvgg,
    resnet,
    se_resnet,
    shufflenet,
    squeezenext,
    squeezenext23,
    wide_resnet,
    xception,
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
    "repvgg",
    "resnet",
    "se_resnet",
    "shufflenet",
    "squeezenext",
    "squeezenext23",
    "wide_resnet",
    "xception",
]
