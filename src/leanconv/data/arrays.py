"""From a stream of images to one tensor in memory, and to the statistics of its channels."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from leanconv.data.augment import DRAWS
from leanconv.data.cache import read_cached, write_cached
from leanconv.data.splits import ArraySplit, Pick, Split
from leanconv.data.streaming import StreamSplit
from leanconv.errors import UserError

_CHUNK = 500
_FEW = 20_000
"""Images that one process decodes before others would have started."""
_SAMPLE = 2_000
"""Images of a stream that its statistics are taken from."""


def in_memory(stream: StreamSplit, folder: Path) -> ArraySplit:
    """Decode all images of a split into one tensor, or read them from where this was done before.

    Args:
        stream: The images.
        folder: Where decoded images are kept.

    Raises:
        UserError: An image cannot be decoded, or the folder cannot be written to.
    """
    path = folder / f"{_fingerprint(stream)}.safetensors"
    images = read_cached(path)
    if images is None:
        images = _decoded(stream)
        write_cached(path, images)
    return ArraySplit(images, stream.labels)


def _fingerprint(stream: StreamSplit) -> str:
    """Return a name for the decoded images, made of the encoded ones and the form they are wanted in."""
    digest = hashlib.blake2b(f"{stream.image_size} {stream.channels} {stream.centre}".encode(), digest_size=16)
    contents = stream.images.contents()
    for index in range(len(stream)):
        try:
            content = next(contents)
        except OSError as error:
            raise UserError(f"{stream.images.where(index)} is not a readable image: {error}.") from error
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _decoded(stream: StreamSplit) -> Tensor:
    from rich.console import Console
    from rich.progress import Progress

    if len(stream) < _FEW:
        stream = replace(stream, workers=0)
    images = torch.empty(len(stream), stream.channels, *stream.image_size, dtype=torch.uint8)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Decoding images", total=len(stream))
        for batch, _ in stream.read(_picks(torch.arange(len(stream))), torch.device("cpu"), None):
            done = int(progress.tasks[task].completed)
            images[done : done + len(batch)] = batch
            progress.advance(task, len(batch))
    return images


def moments(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, of values 0 to 1.

    They are exact for images in memory, and those of up to 2,000 images, evenly spaced, of a stream.
    """
    count = len(split)
    rows = torch.arange(count)
    if not isinstance(split, ArraySplit) and count > _SAMPLE:
        rows = torch.linspace(0, count - 1, _SAMPLE).long()
    total, squares, pixels = torch.tensor(0.0).double(), torch.tensor(0.0).double(), 0
    for images, _ in split.read(_picks(rows), torch.device("cpu"), None):
        values = images.float() / 255
        total = total + values.sum(dim=(0, 2, 3))
        squares = squares + values.square().sum(dim=(0, 2, 3))
        pixels += values[:, 0].numel()
    mean = total / pixels
    # A channel that never changes would have a deviation of zero: one level of 255 stands in for it.
    std = (squares / pixels - mean.square()).clamp_min(255.0**-2).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())


def _picks(rows: Tensor) -> list[Pick]:
    return [(part, torch.zeros(1, DRAWS).expand(len(part), -1)) for part in rows.split(_CHUNK)]
