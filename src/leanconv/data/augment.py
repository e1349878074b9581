"""Augmentation of whole batches: random crop with padding, horizontal flip and cutout, without a Python loop.

Every image of an epoch is given one row of :data:`DRAWS` uniform numbers, drawn on the CPU for the whole epoch
at once, and every transformation reads its own columns.  So an image is augmented in the same way on any
device and for any number of processes, and switching one transformation off leaves the others as they were.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from leanconv.errors import UserError

DRAWS = 9
"""Uniform numbers an image gets in an epoch: crop (2), flip (1), cutout (2), resampling crop (4)."""
_CROP, _FLIP, _CUTOUT = slice(0, 2), 2, slice(3, 5)
RESAMPLING_DRAWS = slice(5, 9)


@dataclass(frozen=True)
class Augment:
    """What happens to training images; the default is nothing.

    Args:
        crop_padding: Pad with this many black pixels on each side and crop back to the size at a random place.
        flip: Mirror left and right with probability one half.
        cutout: Side in pixels of the square set to the mean colour around a random centre, 0 for none
            (DeVries and Taylor 2017, "Improved regularization of convolutional neural networks with cutout").
        crop_area: Cut a random part of at least this fraction of the area, of aspect ratio 3/4 to 4/3, and
            resample it to the size (Szegedy et al. 2015, "Going deeper with convolutions", section 6); ``None``
            for no such crop.  Only for streamed splits, which still have the original image.

    Raises:
        UserError: A value is out of range or of another type.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    crop_area: float | None = None

    def __post_init__(self) -> None:
        # Recipes bring values of any type from YAML.
        crop_padding, flip, cutout, area = (getattr(self, entry.name) for entry in fields(self))
        for name, pixels in (("crop_padding", crop_padding), ("cutout", cutout)):
            if not isinstance(pixels, int) or pixels < 0:
                raise UserError(f"{name}={pixels!r} is not a number of pixels: give 0 or more.")
        if not isinstance(flip, bool):
            raise UserError(f"flip={flip!r} is neither true nor false.")
        if area is not None and not (isinstance(area, (int, float)) and 0 < area <= 1):
            raise UserError(f"crop_area={area!r} is not a fraction of the area: give 0 < crop_area <= 1.")

    def move(self, images: Tensor, draws: Tensor) -> Tensor:
        """Flip and crop a batch; what works on raw pixels.

        Args:
            images: (B, C, H, W), any type.
            draws: (B, DRAWS) uniform numbers of [0, 1) on the same device.
        """
        if self.flip:
            images = flip(images, draws[:, _FLIP] < 0.5)
        if self.crop_padding:
            images = crop(images, self.crop_padding, _below(draws[:, _CROP], 2 * self.crop_padding + 1))
        return images

    def erase(self, images: Tensor, draws: Tensor) -> Tensor:
        """Cut squares out of a batch of normalised images, whose mean colour is 0."""
        if not self.cutout:
            return images
        height, width = images.shape[-2:]
        rows, columns = draws[:, _CUTOUT].unbind(1)
        centres = torch.stack([_below(rows, height), _below(columns, width)], dim=1)
        return cutout(images, self.cutout, centres)


def _below(uniform: Tensor, bound: int) -> Tensor:
    """Turn uniform numbers of [0, 1) into integers of [0, bound)."""
    return (uniform * bound).long().clamp_max(bound - 1)


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """Mirror the images (B, C, H, W) whose ``mask`` (B,) is true from left to right."""
    return torch.where(mask[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, padding: int, offsets: Tensor) -> Tensor:
    """Pad images (B, C, H, W) with zeros on each side and cut (H, W) out of each at its own place.

    Args:
        images: The batch.
        padding: Pixels added on each of the four sides.
        offsets: (B, 2) int64, top row and left column of each cut in the padded image, 0 … 2 * padding.
    """
    height, width = images.shape[-2:]
    windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    # One index a window instead of one a pixel: a view of all windows, of which one an image is copied.
    return windows[torch.arange(len(images), device=images.device), :, offsets[:, 0], offsets[:, 1]]


def cutout(images: Tensor, side: int, centres: Tensor) -> Tensor:
    """Set a square of each image (B, C, H, W) to zero; at a border the square is clipped, as in the paper.

    Args:
        images: Normalised images.
        side: Side of the square in pixels.
        centres: (B, 2) int64 row and column of the square's centre (of the pixel after it, for an even side).
    """
    first = centres - side // 2
    rows = torch.arange(images.shape[-2], device=images.device) - first[:, 0, None]
    columns = torch.arange(images.shape[-1], device=images.device) - first[:, 1, None]
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    return images.masked_fill(inside[:, None], 0)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Turn uint8 images (B, C, H, W) into floats, ``(images / 255 - mean) / std`` for each channel."""
    scale, shift = 1 / (255 * std), -mean / std
    return images.to(scale.dtype) * scale[:, None, None] + shift[:, None, None]
