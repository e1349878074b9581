"""Data sets that are folders of image files, a folder for each class."""

from collections.abc import Sequence
from pathlib import Path

import torch

from leanconv.data.sources import FileImages, Labelled, Source, choose_splits
from leanconv.errors import UserError

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
"""What an image file's name ends with, in small or capital letters."""


def read_folder(folder: Path, splits: tuple[str, str | None] | None) -> Source:
    """Find the images of ``folder/<split>/<class>/…`` or ``folder/<class>/…``.

    Classes are numbered in the order of their names.  Hidden files and folders are passed over.

    Args:
        folder: The folder.
        splits: Which splits to train and to test on; ``None`` finds them.

    Raises:
        UserError: There are no images, or they are not in at least two class folders.
    """
    found = _folders(folder)
    if splits is None and "train" not in found:
        classes = _class_folders(folder)
        return Source(tuple(classes), _labelled(folder, classes), None)
    train, test = choose_splits(found, splits, f"folder {folder}")
    classes = _class_folders(folder / train)
    if test is None:
        return Source(tuple(classes), _labelled(folder / train, classes), None)
    for name in _folders(folder / test):
        if name not in classes:
            raise UserError(f"The folder {folder / test / name} is a class of which {folder / train} has no images.")
    return Source(tuple(classes), _labelled(folder / train, classes), _labelled(folder / test, classes))


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_folders(folder: Path) -> list[str]:
    classes = _folders(folder)
    if len(classes) < 2:
        raise UserError(
            f"The folder {folder} has {len(classes)} class folders: put the images of each class, of at least two, "
            "into a folder of its own."
        )
    return classes


def _labelled(folder: Path, classes: Sequence[str]) -> Labelled:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = image_files(folder / name)
        if not images and (folder / name).is_dir():
            raise UserError(f"The class folder {folder / name} has no image files.")
        paths += images
        labels += [label] * len(images)
    if not paths:
        raise UserError(f"The folder {folder} has no class folders with image files.")
    return Labelled(FileImages(paths), torch.tensor(labels, dtype=torch.int64))


def image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder and its folders, by name; hidden ones are passed over."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
