"""From an encoded image to pixels of the size and channels asked for."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from leanconv.data.sources import Images
from leanconv.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]


def decode(images: Images, index: int, channels: int) -> "Image.Image":
    """Decode one image as grey (1 channel) or RGB (3).

    Transparency is dropped, 16-bit grey is scaled to 8 bits, and a camera's orientation tag is applied.

    Args:
        images: Where it is.
        index: Its number.
        channels: 1 or 3.

    Raises:
        UserError: It cannot be decoded.
    """
    from PIL import Image

    image = _loaded(images, index)
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 instead of scaling.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        # Pillow warns when a palette with transparency becomes RGB in one step.
        image = image.convert("RGBA")
    return image.convert("RGB" if channels == 3 else "L")


def native_form(images: Images, index: int) -> tuple[tuple[int, int], int]:
    """Return the height and width of an image, and its channels: 1 if it is grey, else 3.

    Raises:
        UserError: It cannot be decoded.
    """
    image = _loaded(images, index)
    grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
    return (image.height, image.width), 1 if grey else 3


def _loaded(images: Images, index: int) -> "Image.Image":
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = images.open(index)
        image.load()
    except UnidentifiedImageError as error:
        raise UserError(f"{images.where(index)} is not an image of a known format.") from error
    # Pillow's decoders raise many kinds of exceptions on broken files; to the user they are all one.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{images.where(index)} is not a readable image: {error}.") from error
    ImageOps.exif_transpose(image, in_place=True)
    return image


def centre_box(width: int, height: int, size: tuple[int, int], fraction: float) -> Box:
    """Return the central part of an image that has the proportions of ``size``.

    Args:
        width: Of the image.
        height: Of the image.
        size: Height and width wanted.
        fraction: Side of the part, as a fraction of the largest that fits.
    """
    scale = min(width / size[1], height / size[0]) * fraction
    box_width, box_height = size[1] * scale, size[0] * scale
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def random_box(width: int, height: int, least_area: float, draws: Tensor) -> Box:
    """Return a random part of an image, as in Szegedy et al. 2015, section 6.

    The area is uniform in ``[least_area, 1]`` and the logarithm of the aspect ratio in that of 3/4 … 4/3.  A part
    that does not fit is cut at the image's border; nothing is drawn again, so four numbers are always enough.

    Args:
        width: Of the image.
        height: Of the image.
        least_area: Smallest fraction of the area.
        draws: Four uniform numbers: area, aspect ratio, place in height and in width.
    """
    area, aspect, down, right = draws.tolist()
    part = width * height * (least_area + (1 - least_area) * area)
    ratio = math.exp((2 * aspect - 1) * math.log(4 / 3))
    box_width = min(max(round(math.sqrt(part * ratio)), 1), width)
    box_height = min(max(round(math.sqrt(part / ratio)), 1), height)
    left, top = math.floor(right * (width - box_width + 1)), math.floor(down * (height - box_height + 1))
    return left, top, left + box_width, top + box_height


def resample(image: "Image.Image", size: tuple[int, int], box: Box) -> "Image.Image":
    """Resample part of an image to a height and width, bilinear with antialiasing."""
    from PIL import Image

    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)


def to_tensor(image: "Image.Image") -> Tensor:
    """Return pixels as (C, H, W) uint8."""
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
