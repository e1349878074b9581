"""What stands behind fully transparent pixels, which interpolation would mix into visible ones."""

from typing import Any

import numpy as np

Pixels = np.ndarray[Any, np.dtype[Any]]


def bleed(pixels: Pixels) -> Pixels:
    """Give fully transparent pixels the colour of the nearest visible one.

    Files mostly hold black there, and interpolated edges would turn dark.

    Args:
        pixels: ``(H, W, 2 or 4)``, the last channel alpha.

    Returns:
        The same pixels where none, or all, are fully transparent; else a copy.
    """
    from scipy.ndimage import distance_transform_edt

    hidden = pixels[..., -1] == 0
    if not hidden.any() or hidden.all():
        return pixels
    rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    filled = pixels.copy()
    filled[..., :-1] = pixels[rows, columns, :-1]
    return filled
