"""Bicubic resizing as MATLAB's ``imresize`` does it, by which super-resolution is trained and compared.

Keys' cubic kernel with ``a = -1/2`` (Keys, 1981, "Cubic convolution interpolation for digital image processing"),
widened by the factor when an image shrinks, on samples at pixel centres, and edge pixels repeated beyond the edges:
that makes the low-resolution images on which the field compares, bit for bit.  (Later releases of MATLAB continue an
image by its mirror image instead, which changes the outermost pixels.)
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from leanconv.errors import UserError

#: Pixels on each side of a point that enlarging by a whole number looks at; ``ceil(2 / scale) + 1`` when shrinking.
REACH = 2


def imresize(images: Tensor, scale: float) -> Tensor:
    """Resize images by a factor, antialiased when they shrink.

    Args:
        images: (..., H, W), floating point or uint8.
        scale: Above 1 enlarges; the new sides are ``ceil(scale * side)``.

    Returns:
        Images of the same type; uint8 is rounded after each of the two passes, as MATLAB does, height first.

    Raises:
        UserError: The scale is not positive and finite, or there is no pixel.

    Example:
        >>> imresize(torch.rand(1, 24, 36), 1 / 3).shape
        torch.Size([1, 8, 12])
    """
    if not 0 < scale < math.inf:
        raise UserError(f"`scale` must be positive and finite, got {scale}; 0.5 halves the sides.")
    if images.dim() < 2 or not images.numel():
        raise UserError(f"`images` must have height and width, got the shape {tuple(images.shape)}.")
    for axis in (-2, -1):
        if images.dtype == torch.uint8:
            images = to_uint8(_resized(images.double(), scale, axis))
        else:
            images = _resized(images, scale, axis)
    return images


def to_uint8(values: Tensor) -> Tensor:
    """Round to the nearest level of 0 … 255, halves upwards as MATLAB does."""
    return (values + 0.5).floor().clamp(0, 255).to(torch.uint8)


def _resized(images: Tensor, scale: float, axis: int) -> Tensor:
    places, weights = taps(images.shape[axis], scale)
    places, weights = places.to(images.device), weights.to(images)
    shape = (-1, 1) if axis == -2 else (-1,)
    # One pass a tap: a matrix of new by old pixels would outgrow memory for photos.
    total = images.index_select(axis, places[0]) * weights[0].reshape(shape)
    for place, weight in zip(places[1:], weights[1:], strict=True):
        total.addcmul_(images.index_select(axis, place), weight.reshape(shape))
    return total


@lru_cache(maxsize=256)
def taps(length: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return which pixels of a line each new pixel is made of, and their float64 weights: two ``(taps, new)`` tensors.

    Args:
        length: Pixels of the line.
        scale: The factor; there are ``ceil(scale * length)`` new pixels.
    """
    # Rounded, because 1 / 3 times a multiple of 3 may be a little above a whole number.
    new = math.ceil(round(scale * length, 9))
    # Below 1 the kernel is stretched, which is the antialiasing.
    shrink = min(scale, 1.0)
    cpu = torch.device("cpu")
    centres = (torch.arange(new, dtype=torch.float64, device=cpu) + 0.5) / scale - 0.5
    first = (centres - 2 / shrink).floor().long()
    places = first + torch.arange(math.ceil(4 / shrink) + 2, device=cpu)[:, None]
    weights = cubic(shrink * (centres - places))
    used = weights.abs().amax(1) > 0
    places, weights = places[used].clamp(0, length - 1), weights[used]
    return places, weights / weights.sum(0)


def cubic(distance: Tensor) -> Tensor:
    """Return Keys' kernel at distances in pixels; it is zero from 2 on."""
    x = distance.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))
