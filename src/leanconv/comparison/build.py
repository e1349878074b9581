"""Networks for a data set."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from leanconv.data import ImageData
from leanconv.errors import UserError
from leanconv.models import MODELS, create_model


def build_model(name: str, data: ImageData, width: int | None = None) -> nn.Module:
    """Return a network with fresh weights for the classes, channels and size of a data set's images.

    Args:
        name: One of ``list_models()``.
        data: The data set.
        width: Its ``base_width``; the published one by default.

    Raises:
        UserError: The name is unknown, the network has no such width or classifies nothing, or the images are too
            small for it.
    """
    if name in MODELS and MODELS[name].purpose != "classify":
        raise UserError(
            f"Model {name!r} enlarges images, and {data.name} has images to classify: leanconv train and evaluate take "
            "it with images to enlarge."
        )
    options: dict[str, Any] = {} if width is None else {"base_width": width}
    return create_model(
        name, num_classes=data.num_classes, in_channels=data.channels, image_size=data.image_size, **options
    )


def build_models(names: Sequence[str], data: ImageData, width: int | None) -> dict[str, nn.Module]:
    """Return the named models in evaluation mode, with the classes and channels of the data.

    Raises:
        UserError: No name, a name twice, an unknown name, or a width the model does not take.
    """
    if not names:
        raise UserError("names=() leaves nothing to compare: name one or more models.")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"names has {name!r} {names.count(name)} times: name every model once.")
    return {name: build_model(name, data, width).eval() for name in names}
