"""Enlarging arrays of pixels with a network, piece by piece."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.imresize import REACH, imresize
from leanconv.luma import luma, with_luma
from leanconv.measurement import peak_memory
from leanconv.measurement.forward import run
from leanconv.measurement.placement import placed
from leanconv.models.superres import check_scale
from leanconv.training.device import compute_device
from leanconv.upscaling.margin import Margin, margin_of
from leanconv.upscaling.tiling import Tile, tiles
from leanconv.upscaling.transparency import Pixels, bleed

#: Called with how many pieces are done, and of how many.
OnTile = Callable[[int, int], None]

#: Bytes that the tensors of one piece may take.
_BUDGET = 384 * 2**20
#: Sides of planes on which memory is counted; its slope is what a pixel takes.
_COUNTED = (64, 128)
_LARGEST = 2048
_DTYPES = ("uint8", "uint16", "float32")


class Upscaler:
    """Enlarges pictures by a whole factor: luma by the network, Cb, Cr and transparency by bicubic interpolation.

    Large pictures are cut into pieces that overlap by exactly what the network sees, found by
    :func:`leanconv.receptive.reach`, and end where the picture ends: the result is that of the whole picture, and
    memory is bounded.

    Args:
        model: A :class:`~leanconv.models.superres.SuperResolution` network with trained weights, folded or not.
        scale: Factor on both sides.
        tile: Largest side of a piece in pixels of the small picture, without its margin; 0 never cuts, and by default
            the tensors of a piece take at most 384 MiB.
        device: Where to compute; the accelerator if there is one, by default.

    Attributes:
        model: The network, in evaluation mode; a copy if it was elsewhere or not in float32.
        scale: The factor.

    Raises:
        UserError: The network is not for super-resolution or not for this scale, or an argument is out of range.

    Example:
        >>> from leanconv.models.superres import Bicubic
        >>> Upscaler(Bicubic(), 2, device="cpu")(np.zeros((3, 5, 3), np.uint8)).shape
        (6, 10, 3)
    """

    def __init__(
        self,
        model: nn.Module,
        scale: int = 2,
        *,
        tile: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        check_scale(model, scale)
        if tile is not None and (type(tile) is not int or tile < 0):
            raise UserError(f"`tile` must be a side in pixels, or 0 to never cut, got {tile!r}.")
        self.device = compute_device(_accelerator() if device is None else device)
        self.model = placed(model, device=self.device, dtype=torch.float32).eval()
        self.scale = scale
        self._upsamples = bool(model.upsamples)
        self._tile = tile
        self._margin: Margin | None = None
        self._side: int | None = None

    def __call__(
        self, pixels: Pixels, *, dtype: "np.typing.DTypeLike | None" = None, on_tile: OnTile | None = None
    ) -> Pixels:
        """Enlarge a picture.

        Args:
            pixels: ``(H, W)`` or ``(H, W, C)``: grey, grey and alpha, RGB, or RGB and alpha; uint8, uint16, or float32
                from 0 to 1.
            dtype: Of the result, if it is another.
            on_tile: Called after each piece.

        Returns:
            ``(scale * H, scale * W)`` or ``(scale * H, scale * W, C)``; float32 is not clipped.

        Raises:
            UserError: The array is not a picture, the network does not take it, or a piece needs more memory than the
                device has.
        """
        _check(pixels)
        height, width = pixels.shape[:2]
        channels = pixels.reshape(height, width, -1)
        if channels.shape[2] in (2, 4):
            channels = bleed(channels)
        wanted = np.dtype(pixels.dtype if dtype is None else dtype)
        try:
            out = np.empty((self.scale * height, self.scale * width, channels.shape[2]), wanted)
        except MemoryError as error:
            raise UserError(
                f"`scale` {self.scale} makes {self.scale * width}×{self.scale * height} pixels, which the memory of "
                "this machine does not hold: a smaller one would work."
            ) from error
        pieces = list(self.tiles(height, width))
        for done, tile in enumerate(pieces, 1):
            piece = torch.from_numpy(channels[tile.outer].astype(np.float32)).to(self.device).movedim(2, 0)
            enlarged = self.enlarge(piece / _white(pixels.dtype))[:, *tile.kept(self.scale)]
            out[tile.target(self.scale)] = _quantised(enlarged, wanted)
            if on_tile is not None:
                on_tile(done, len(pieces))
        return out.reshape(*out.shape[:2], *pixels.shape[2:])

    def tiles(self, height: int, width: int) -> Iterator[Tile]:
        """Return the pieces into which a picture of this size is cut.

        Raises:
            UserError: It has to be cut, and the network looks at the whole picture or cannot be traced.
        """
        side = self._largest_side()
        if side == 0 or max(height, width) <= side:
            return tiles(height, width, max(height, width), 0)
        margin = self._margin_of_pictures()
        return tiles(height, width, side, margin.pixels, margin.period)

    @torch.inference_mode()
    def enlarge(self, piece: Tensor) -> Tensor:
        """Enlarge a picture in one piece.

        Args:
            piece: ``(C, H, W)`` from 0 to 1, on the upscaler's device; channels as in ``__call__``.

        Returns:
            ``(C, scale * H, scale * W)``, not clipped.
        """
        colours = piece.shape[0] - 1 if piece.shape[0] in (2, 4) else piece.shape[0]
        bicubic = imresize(piece, self.scale)
        plane = luma(piece[:colours]) if self._upsamples else luma(bicubic[:colours])
        enlarged = with_luma(bicubic[:colours], self._run(plane))
        return torch.cat((enlarged, bicubic[colours:]))

    def _run(self, plane: Tensor) -> Tensor:
        try:
            found: Tensor = run(self.model, (plane.unsqueeze(0),), "picture").squeeze(0)
        except torch.OutOfMemoryError as error:
            height, width = plane.shape[1:]
            raise UserError(
                f"A piece of {width}×{height} pixels is too large for the memory of {self.device}: give a smaller "
                "`tile`."
            ) from error
        return found

    def _largest_side(self) -> int:
        """Return the side of a piece, found when it is first needed."""
        if self._tile is not None:
            return self._tile
        if self._side is None:
            per_pixel = self._bytes_per_pixel()
            self._side = min(math.isqrt(_BUDGET // per_pixel), _LARGEST)
        return self._side

    def _bytes_per_pixel(self) -> int:
        """Return what one pixel of the small picture takes while a piece is enlarged."""
        factor = 1 if self._upsamples else self.scale
        small, large = (peak_memory(self.model, (1, 1, factor * side, factor * side)) for side in _COUNTED)
        network = (large - small) // (_COUNTED[1] ** 2 - _COUNTED[0] ** 2)
        # Four channels before and after, in float32 and half a dozen copies.
        return network + 6 * 16 * self.scale**2

    def _margin_of_pictures(self) -> Margin:
        """Return the margin in pixels of the small picture, found when it is first needed."""
        if self._margin is None:
            own = margin_of(self.model)
            if self._upsamples:
                self._margin = Margin(max(own.pixels, REACH), own.period)
            else:
                # The network sees the enlarged plane, whose pixels depend on those that interpolation looks at.
                pixels = -(-own.pixels // self.scale) + REACH
                self._margin = Margin(pixels, own.period // math.gcd(own.period, self.scale))
        return self._margin


def _accelerator() -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def _check(pixels: Any) -> None:
    """Refuse what is not a picture.

    Raises:
        UserError: It is not an array of a known type, with one to four channels and at least one pixel.
    """
    if not isinstance(pixels, np.ndarray) or pixels.dtype.name not in _DTYPES:
        kind = pixels.dtype if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise UserError(f"`pixels` must be an array of {', '.join(_DTYPES[:-1])} or {_DTYPES[-1]}, got {kind}.")
    if pixels.ndim not in (2, 3) or not pixels.size or (pixels.ndim == 3 and pixels.shape[2] > 4):
        raise UserError(
            f"`pixels` must be (H, W) or (H, W, C) with 1 to 4 channels and at least one pixel, got {pixels.shape}."
        )


def _white(dtype: np.dtype[Any]) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0


def _quantised(values: Tensor, dtype: np.dtype[Any]) -> Pixels:
    """Return ``(C, H, W)`` from 0 to 1 as pixels ``(H, W, C)``, rounded and clipped to what the type holds."""
    found = values.movedim(0, 2)
    if dtype.kind == "u":
        found = (found * _white(dtype)).round_().clamp_(0, _white(dtype))
    return found.cpu().numpy().astype(dtype)
