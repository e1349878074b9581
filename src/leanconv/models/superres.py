"""What networks that enlarge images share: which plane they take, at which scales, and how far they look."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from leanconv.errors import UserError

#: Factors on both sides for which the field trains and compares.
SCALES = (2, 3, 4)
#: Name of the baseline that is no network.
BICUBIC = "bicubic"


class SuperResolution(nn.Module):
    """A network that enlarges the luma plane Y of an image; colour is enlarged without a network.

    Luma is that of ITU-R BT.601 as MATLAB's ``rgb2ycbcr`` gives it, divided by 255: 16 / 255 to 235 / 255.  There are
    two kinds, told apart by :attr:`upsamples`, and ``model(plane)`` has no other argument:

    - ``upsamples=False``: takes the plane enlarged by bicubic interpolation (:func:`leanconv.imresize.imresize`),
      ``(N, 1, H, W)``, and returns the better one of the same size.  One network serves every scale in ``scales``.
    - ``upsamples=True``: takes the small plane ``(N, 1, h, w)`` and returns ``(N, 1, scale * h, scale * w)``.  It is
      made for one scale, ``create_model(name, scale=3)``, and ``scales`` holds that one.

    Folding (:func:`leanconv.fold`) keeps these attributes, so that a folded network is used like the one it was.

    Args:
        scales: Factors it is, or will be, trained for.
        upsamples: Whether it takes the small plane.

    Attributes:
        upsamples: Whether it takes the small plane.
        scales: Factors it may be used at; others are a mistake.
        halo: Pixels *of its input* around a point that its output there depends on.  Tiles cut with so many pixels
            more on each side (fewer only where the image ends) and trimmed by so many again join to exactly the
            output for the whole image.
        input_size: Channels, height and width of the plane its costs are listed for.
        config: Name and arguments that make ``create_model`` build it again.

    Raises:
        UserError: A scale is not a whole number above 1, or there is none.
    """

    halo: int
    input_size: tuple[int, ...]
    config: dict[str, Any]

    def __init__(self, scales: Sequence[int] = SCALES, *, upsamples: bool = False) -> None:
        super().__init__()
        if not isinstance(scales, Sequence) or not scales or not all(type(s) is int and 1 < s <= 16 for s in scales):
            raise UserError(f"`scales` must be whole numbers of 2 to 16, got {scales!r}; (2, 3, 4) would work.")
        self.scales, self.upsamples = tuple(scales), upsamples


class Bicubic(SuperResolution):
    """No network: returns the bicubically enlarged plane as it is, the baseline of every comparison."""

    halo = 0

    def __init__(self) -> None:
        super().__init__(range(2, 17))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 1, H, W)`` unchanged."""
        return x


def check_scale(network: nn.Module, scale: int) -> None:
    """Check that a network enlarges images, and that it may be used at a scale.

    Args:
        network: One of this package's, folded or not.
        scale: The factor asked for.

    Raises:
        UserError: It enlarges none, or was not trained for that scale.
    """
    scales: tuple[int, ...] | None = getattr(network, "scales", None)
    if scales is None:
        raise UserError("The network enlarges no images: name one of those for super-resolution, such as 'vdsr'.")
    if scale not in scales:
        known = " or ".join(str(own) for own in scales)
        raise UserError(f"`scale` {scale} is none that the network is trained for: {known} would work.")
