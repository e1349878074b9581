"""The luma plane that super-resolution networks take: ITU-R BT.601 as MATLAB's ``rgb2ycbcr`` computes it."""

import torch
from torch import Tensor

_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_BLACK = 16 / 255
#: What white has more than black: 219 / 255.
LUMA_RANGE = sum(_WEIGHTS)


def luma(colours: Tensor) -> Tensor:
    """Return the luma plane of a picture.

    Args:
        colours: ``(1 or 3, H, W)``, grey or red, green and blue, 0 to 1.

    Returns:
        ``(1, H, W)``, 16 / 255 to 235 / 255.
    """
    if colours.shape[0] == 1:
        return colours * LUMA_RANGE + _BLACK
    weights = torch.tensor(_WEIGHTS, dtype=colours.dtype, device=colours.device)
    plane: Tensor = torch.tensordot(weights, colours, 1).unsqueeze(0)
    return plane + _BLACK


def with_luma(colours: Tensor, plane: Tensor) -> Tensor:
    """Return a picture with another luma plane and the same Cb and Cr.

    Luma stands in red, green and blue with the same factor, so that its change is simply added to each.

    Args:
        colours: ``(1 or 3, H, W)``, 0 to 1.
        plane: ``(1, H, W)``.
    """
    return colours + (plane - luma(colours)) / LUMA_RANGE
