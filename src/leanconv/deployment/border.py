"""What a shift between two convolutions becomes where the second one pads."""

import torch
from torch import Tensor, nn

from leanconv.ops.affine import Affine


class BorderShift(nn.Module):
    """Adds the shift of a convolution as a second one, which pads with zeros, passes it on.

    Inside it is one number a channel; at borders less of it arrives, because padding is not shifted.  It is computed
    from the input's size alone, on maps that are one sample long wherever nothing is padded.

    Args:
        first: The convolution with the shift; it does not act along the axes that the second pads.
        second: The convolution behind it.

    Shapes:
        ``(N, out_channels, *spatial')``, the linear part, and ``(N, C, *spatial)``, what it was computed from, to the
        first.
    """

    shift: Tensor

    def __init__(self, first: Affine, second: Affine) -> None:
        super().__init__()
        assert first.bias is not None
        layout = second.layout
        self.conv = second.conv()
        self.sizes = tuple(None if axis in layout.padded else size for axis, size in enumerate(layout.extent))
        self.register_buffer("shift", first.bias.to(second.dtype).view(1, -1, *[1] * layout.dims))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """Return ``y`` with the map for an input of the size of ``x`` added."""
        sizes = [x.shape[2 + axis] if size is None else size for axis, size in enumerate(self.sizes)]
        shift = self.conv(self.shift.expand(1, -1, *sizes))
        # Runtimes know its values and add whole planes quickly, but not a row to each row.
        result: Tensor = y + shift.expand(1, -1, *y.shape[2:])
        return result


@torch.no_grad()
def border_shift(first: Affine, second: Affine) -> BorderShift:
    """Return the module, in evaluation mode."""
    return BorderShift(first, second).eval()
