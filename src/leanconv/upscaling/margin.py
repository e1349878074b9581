"""How far a network looks: what a piece of a picture must have around it to come out as in the whole picture."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.receptive import reach

#: Sides of the planes that reaches are found on; lengths that strides of 2, 3 and 4 divide.
_SIDES = (96, 192, 384)
#: Pixels in the middle of the plane, seen from everywhere in full, in which a pattern must repeat.
_MIDDLE = 32


@dataclass(frozen=True)
class Margin:
    """What a network needs around a piece.

    Attributes:
        pixels: Of its input on each side, the largest distance from an output to what it depends on.
        period: A network with strides computes the same on shifted input only if the shift is a multiple of this.
    """

    pixels: int
    period: int


def margin_of(model: nn.Module) -> Margin:
    """Find the exact margin of a network of one plane, from its operators alone.

    Args:
        model: Maps ``(N, 1, H, W)`` to ``(N, 1, factor * H, factor * W)``.

    Raises:
        UserError: ``torch.export`` cannot trace it, or it looks at the whole picture, as global pooling does.
    """
    for side in _SIDES:
        (reached,) = reach(model, (1, 1, side, side))
        distances = [_distances(samples.any(0)) for samples in reached.samples]
        pixels = max(int(distance.max()) for distance in distances)
        if 2 * pixels + _MIDDLE > side:
            continue
        # Only in the middle nothing is cut off by the ends of the plane.
        middles = torch.cat([distance[pixels : side - pixels] for distance in distances], 1)
        period = next((p for p in range(1, _MIDDLE) if torch.equal(middles[p:], middles[:-p])), None)
        if period is not None:
            return Margin(pixels, period)
    raise UserError(
        f"`model` {type(model).__name__} looks at the whole picture and cannot work on pieces: tile=0 computes in one."
    )


def _distances(depends: Tensor) -> Tensor:
    """Return ``(samples, 2 * factor)``: how far the outputs at each input sample look back and ahead."""
    positions, samples = depends.shape
    index = torch.arange(samples)
    own = torch.arange(positions) // (positions // samples)
    # An output that depends on nothing looks nowhere.
    first = torch.where(depends, index, samples).amin(1).minimum(own)
    last = torch.where(depends, index, -1).amax(1).maximum(own)
    return torch.stack((own - first, last - own), 1).reshape(samples, -1)
