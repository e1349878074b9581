"""Where images come from before they are decoded: anything that can be opened one by one."""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from leanconv.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

TEST_FRACTION = 0.2
"""Part of the images set aside for testing when a set has no test split."""


SPLITS = frozenset(("train", "test", "validation", "valid", "val"))
"""What splits are called."""


class Images(Protocol):
    """Encoded images by number."""

    def __len__(self) -> int: ...

    def contents(self) -> Iterator[bytes]:
        """Yield what identifies each image: its file's bytes, or its pixels."""

    def open(self, index: int) -> "Image.Image":
        """Return an image; it may not have been decoded yet."""

    def where(self, index: int) -> str:
        """Return words that lead a user to an image."""


class FileImages:
    """Image files.

    The paths are kept in one array of bytes, because a list of a million strings would be copied into every
    worker process as its reference counts are touched.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = np.array([os.fsencode(path) for path in paths])

    def __len__(self) -> int:
        return len(self._paths)

    def contents(self) -> Iterator[bytes]:
        """Yield the bytes of each file."""
        return (self._path(index).read_bytes() for index in range(len(self)))

    def open(self, index: int) -> "Image.Image":
        """Return the image in a file."""
        return _opened(self._path(index).read_bytes())

    def where(self, index: int) -> str:
        """Return the name of a file."""
        return f"The file {self._path(index)}"

    def _path(self, index: int) -> Path:
        return Path(os.fsdecode(bytes(self._paths[index])))


class ColumnImages:
    """A column of a ``datasets.Dataset`` with encoded images: bytes, or records of bytes and path.

    Args:
        table: The data set.
        column: Name of the column; it must not be decoded by the data set itself.
        name: What to call the data set in messages.
    """

    def __init__(self, table: Any, column: str, name: str) -> None:
        self._table, self._column, self._name = table, column, name

    def __len__(self) -> int:
        return len(self._table)

    def contents(self) -> Iterator[bytes]:
        """Yield the bytes of each encoded image."""
        for block in self._table.with_format("arrow").iter(1000):
            for value in block.column(self._column).to_pylist():
                yield _encoded(value)

    def open(self, index: int) -> "Image.Image":
        """Return an image."""
        return _opened(_encoded(self._table[index][self._column]))

    def where(self, index: int) -> str:
        """Return the place in the table."""
        return f"Row {index}, column {self._column!r} of {self._name}"


class PixelImages:
    """Images that are pixels already.

    Args:
        pixels: (N, H, W) or (N, H, W, 3), uint8.
        name: What to call them in messages.
    """

    def __init__(self, pixels: "np.ndarray[Any, np.dtype[np.uint8]]", name: str) -> None:
        self._pixels, self._name = pixels, name

    def __len__(self) -> int:
        return len(self._pixels)

    def contents(self) -> Iterator[bytes]:
        """Yield the pixels of each image."""
        return (image.tobytes() for image in self._pixels)

    def open(self, index: int) -> "Image.Image":
        """Return an image."""
        from PIL import Image

        return Image.fromarray(self._pixels[index])

    def where(self, index: int) -> str:
        """Return the number of an image."""
        return f"Image {index} of {self._name}"


class SomeImages:
    """Some of other images.

    Args:
        images: The others.
        rows: (N,) int64, which of them, in ascending order.
    """

    def __init__(self, images: Images, rows: Tensor) -> None:
        self._images, self._rows = images, rows

    def __len__(self) -> int:
        return len(self._rows)

    def contents(self) -> Iterator[bytes]:
        """Yield what identifies each image."""
        chosen = set(self._rows.tolist())
        return (content for row, content in enumerate(self._images.contents()) if row in chosen)

    def open(self, index: int) -> "Image.Image":
        """Return an image."""
        return self._images.open(int(self._rows[index]))

    def where(self, index: int) -> str:
        """Return words that lead a user to an image."""
        return self._images.where(int(self._rows[index]))


def _encoded(value: Any) -> bytes:
    """Return the bytes of an image in a table's cell: bytes, or a record of bytes and path."""
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str):
        value = Path(value).read_bytes()
    if not isinstance(value, bytes):
        raise OSError("there is none")
    return value


def _opened(encoded: bytes) -> "Image.Image":
    from PIL import Image

    return Image.open(io.BytesIO(encoded))


@dataclass(frozen=True, eq=False)
class Labelled:
    """Encoded images and their labels, (N,) int64."""

    images: Images
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Source:
    """A data set found but not decoded; ``test`` is ``None`` where a part of ``train`` is to be set aside."""

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled | None


def choose_splits(found: Sequence[str], wanted: tuple[str, str | None] | None, where: str) -> tuple[str, str | None]:
    """Decide which of the splits found to train and to test on.

    Args:
        found: Names of the splits there are.
        wanted: What the user asked for; ``(train, None)`` sets a part of the training images aside.
        where: What to call the data set in messages.

    Raises:
        UserError: There is no such split.
    """
    listed = ", ".join(repr(name) for name in found) or "none"
    if wanted is not None:
        for name in wanted:
            if name is not None and name not in found:
                raise UserError(f"split_names={wanted} asks for {name!r}, but the {where} has the splits {listed}.")
        return wanted
    if "train" not in found:
        raise UserError(f"The {where} has the splits {listed} and no 'train': name two with split_names=(train, test).")
    for name in ("test", "validation", "valid", "val"):
        if name in found:
            return "train", name
    raise UserError(
        f"The {where} has the splits {listed} but none to test on: add a 'test' split, name one with "
        "split_names=(train, test), or set a fifth of the training images aside with split_names=('train', None)."
    )


def set_aside(data: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """Split images into train and test, each class in the same proportion, the same way every time.

    Args:
        data: All images.
        seed: Seed of the choice.

    Raises:
        UserError: A class has a single image.
    """
    generator = torch.Generator().manual_seed(seed)
    train, test = [], []
    for label in data.labels.unique():
        rows = (data.labels == label).nonzero()[:, 0]
        if len(rows) < 2:
            raise UserError(
                f"{data.images.where(int(rows[0]))} is the only image of its class, so none can be set aside for "
                "testing: add images or a test split."
            )
        rows = rows[torch.randperm(len(rows), generator=generator)]
        kept = min(round(len(rows) * (1 - TEST_FRACTION)), len(rows) - 1)
        train.append(rows[:kept])
        test.append(rows[kept:])
    halves = (torch.cat(rows).sort().values for rows in (train, test))
    first, second = (Labelled(SomeImages(data.images, rows), data.labels[rows]) for rows in halves)
    return first, second
