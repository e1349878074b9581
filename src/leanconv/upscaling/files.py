"""Picture files enlarged, one at a time."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from leanconv.deployment.files import written_together
from leanconv.errors import UserError
from leanconv.upscaling.network import load_network
from leanconv.upscaling.picture import format_of, read_picture, require_superres_extra, write_picture
from leanconv.upscaling.upscaler import OnTile, Upscaler

QUALITY = 95


@dataclass(frozen=True)
class Upscaled:
    """What became of a picture file.

    Attributes:
        source: The file read.
        target: The file written.
        size: Width and height of the picture read.
        enlarged_size: Width and height of the picture written.
        channels: 1 grey, 2 with alpha, 3 RGB, 4 with alpha.
        bits: Of each channel, as written.
        tiles: Pieces it was computed in.
        seconds: All of it, with reading and writing.
    """

    source: str
    target: str
    size: tuple[int, int]
    enlarged_size: tuple[int, int]
    channels: int
    bits: int
    tiles: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a JSON-able dictionary."""
        record: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return record


def upscale(
    source: str | Path,
    target: str | Path,
    model: str | nn.Module,
    *,
    weights: str | Path | None = None,
    scale: int = 2,
    tile: int | None = None,
    device: torch.device | str | None = None,
    quality: int = QUALITY,
    overwrite: bool = False,
    on_tile: OnTile | None = None,
) -> Upscaled:
    """Enlarge a picture file with a super-resolution network.

    Luma goes through the network, colour and transparency are interpolated.  Grey, RGB, alpha and palettes, 8 and
    16 bits; the picture is turned upright as its EXIF orientation says, and its colour profile, resolution and other
    notes are kept.  The file appears when it is whole.

    Args:
        source: The picture: PNG, JPEG, TIFF, WebP, GIF, BMP or PNM.
        target: The file to write; its suffix says which format: PNG and TIFF keep 16 bits, JPEG has no transparency.
        model: A network, or a name of ``list_models(purpose="superres")``, or a file of :func:`leanconv.save`.
        weights: Weights of the named network.
        scale: Factor on both sides.
        tile: See :class:`Upscaler`.
        device: See :class:`Upscaler`.
        quality: Of JPEG and WebP, 1 to 100.
        overwrite: Whether to replace a file that is there.
        on_tile: Called after each piece with how many are done, and of how many.

    Raises:
        UserError: The source is no whole picture, the target is there already, is the source or cannot be written, or
            network, weights and scale do not go together.

    Example:
        >>> upscale("photo.jpg", "photo_x2.png", "vdsr", weights="vdsr.safetensors")  # doctest: +SKIP
    """
    require_superres_extra()
    source, target = Path(source), Path(target)
    check_target(source, target, overwrite=overwrite)
    if isinstance(model, str):
        model = load_network(model, weights, scale)
    elif weights is not None:
        raise UserError("`weights` goes with the name of a network: leanconv.training.load_weights fills one.")
    upscaler = Upscaler(model, scale, tile=tile, device=device)
    return upscale_file(upscaler, source, target, quality=quality, overwrite=overwrite, on_tile=on_tile)


def upscale_file(
    upscaler: Upscaler,
    source: Path,
    target: Path,
    *,
    quality: int = QUALITY,
    overwrite: bool = False,
    on_tile: OnTile | None = None,
) -> Upscaled:
    """Enlarge a picture file with an upscaler; the arguments are those of :func:`upscale`."""
    started = time.perf_counter()
    if type(quality) is not int or not 1 <= quality <= 100:
        raise UserError(f"`quality` must be a whole number of 1 to 100, got {quality!r}.")
    check_target(source, target, overwrite=overwrite)
    picture = read_picture(source)
    height, width, channels = picture.pixels.shape
    written = format_of(target)
    if channels in (2, 4) and not written.transparent:
        raise UserError(f"{source} has transparency, which {target.suffix} files do not hold: .png would work.")
    # Where the folder cannot be written to, that should not come out after minutes of work.
    with written_together(target) as temporary:
        enlarged = upscaler(picture.pixels, dtype=None if written.deep else np.dtype(np.uint8), on_tile=on_tile)
        write_picture(enlarged, picture, temporary, quality=quality)
    return Upscaled(
        str(source),
        str(target),
        (width, height),
        (enlarged.shape[1], enlarged.shape[0]),
        channels,
        8 * enlarged.itemsize,
        len(list(upscaler.tiles(height, width))),
        time.perf_counter() - started,
    )


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Check that a picture may be written.

    Raises:
        UserError: The suffix names no format, or a file is there that may not be replaced; the source never may.
    """
    format_of(target)
    if target.exists():
        if source.exists() and os.path.samefile(source, target):
            raise UserError(f"`target` {str(target)!r} is the picture that is read: name another file.")
        if not overwrite:
            raise UserError(
                f"`target` {str(target)!r} is there already: name another file, or replace it with overwrite."
            )
