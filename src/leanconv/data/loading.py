"""One function that loads any data set for image classification."""

import re
from dataclasses import replace
from pathlib import Path

from leanconv.data.arrays import in_memory, moments
from leanconv.data.augment import Augment
from leanconv.data.cache import cache_folder
from leanconv.data.decoding import native_form
from leanconv.data.digits import read_digits
from leanconv.data.folders import read_folder
from leanconv.data.known import DATA_SETS, KnownSet
from leanconv.data.sources import Images, Labelled, Source, set_aside
from leanconv.data.splits import ImageData, Split
from leanconv.data.streaming import StreamSplit, default_workers
from leanconv.data.tables import TableLayout, parquet_files, read_hub, read_parquet
from leanconv.errors import UserError, nearest

IN_MEMORY_BYTES = 2 * 2**30
"""Decoded uint8 images of up to this size together are held in memory …"""
IN_MEMORY_SIDE = 96
"""… if they are at most this high and wide; larger ones are cropped and resampled from the originals."""
PHOTO_SIZE = 224
"""Height and width that larger images, and images of different sizes, are given."""
PHOTO_CENTRE = 224 / 256
"""Part of a streamed photo, by its shorter side, that is tested on."""


def load(
    name_or_path: str | Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    folder: str | Path | None = None,
    split_names: tuple[str, str | None] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    cache_dir: str | Path | None = None,
    streaming: bool | None = None,
    workers: int | None = None,
    seed: int = 0,
) -> ImageData:
    """Load a data set for image classification.

    Small images (see :data:`IN_MEMORY_BYTES` and :data:`IN_MEMORY_SIDE`) are decoded once, kept on disk and held
    in memory; large ones are decoded by worker processes as they are read.

    Args:
        name_or_path: A short name (``list_data_sets()``); ``owner/name`` or ``owner/name:config`` on the Hugging
            Face hub; or a folder: of class folders, of ``train`` and ``test`` (or ``val``, ``valid``,
            ``validation``) with class folders, or of ``train*.parquet`` and ``test*.parquet``.
        image_size: Height and width in pixels; by default those of the images, and if they differ or are above
            224, a square of at most 224.
        channels: 1 (grey) or 3 (RGB); by default those of the first image.
        folder: A local copy of the files of a data set with a short name.
        split_names: Splits to train and to test on, ``(train, None)`` to set a fifth of the former aside.
        image_column: Column of the images in a table.
        label_column: Column of the labels in a table.
        cache_dir: Where decoded images are kept, by default ``$LEANCONV_CACHE`` or ``~/.cache/leanconv``.
        streaming: Whether to decode on the way; by default large images only.
        workers: Processes that decode, by default the processors there are, at most 8.
        seed: Chooses the test images, a fifth of each class, of a data set that has no test split.

    Returns:
        The data set.  One with a short name has its own normalisation and augmentation.  For any other the
        constants are those of its training images (of 2,000 of them, if it streams), and the augmentation is a
        flip with a crop: padded by an eighth in memory, resampled in a stream.

    Raises:
        UserError: There is no such data set, or something is wrong with its files or an argument.

    Example:
        >>> data = load("cifar10")  # doctest: +SKIP
        >>> len(data.train), data.num_classes  # doctest: +SKIP
        (50000, 10)
    """
    if channels not in (None, 1, 3):
        raise UserError(f"channels={channels} is not possible: give 1 for grey or 3 for RGB images.")
    if workers is not None and workers < 0:
        raise UserError(f"workers={workers} is not a number of processes: give 0 or more.")
    name = str(name_or_path)
    known = DATA_SETS[name] if name_or_path in DATA_SETS else None
    if folder is not None and known is None:
        raise UserError(f"folder={str(folder)!r} goes with one of the names {', '.join(DATA_SETS.names())} only.")
    layout = _layout(known, split_names, image_column, label_column)
    if folder is None and known is None and name and Path(name).expanduser().exists():
        folder = name
    if folder is not None:
        source = _open_folder(Path(folder).expanduser(), layout, split_names)
    else:
        source = _open(name, known, layout)
    train, test = _train_and_test(source, name, seed)

    size, native_channels = _form(train.images)
    if image_size is None and known is not None:
        image_size = known.image_size
    if image_size is not None:
        size = _pair(image_size)
    channels = channels or (len(known.mean) if known else native_channels)
    if streaming is None:
        pixels = (len(train.labels) + len(test.labels)) * size[0] * size[1]
        streaming = max(size) > IN_MEMORY_SIDE or pixels * channels > IN_MEMORY_BYTES
    splits: list[Split] = []
    for labelled in (train, test):
        stream = StreamSplit(
            labelled.images,
            labelled.labels,
            size,
            channels,
            centre=PHOTO_CENTRE if streaming else 1.0,
            workers=default_workers() if workers is None else workers,
        )
        splits.append(stream if streaming else in_memory(stream, cache_folder(cache_dir)))
    if known is not None and len(known.mean) == channels:
        mean, std = known.mean, known.std
    else:
        mean, std = moments(splits[0])
    return ImageData(
        name=Path(folder).expanduser().resolve().name if folder is not None and known is None else name,
        classes=source.classes,
        channels=channels,
        image_size=size,
        mean=mean,
        std=std,
        train=splits[0],
        test=splits[1],
        augment=_augment(known, streaming, size),
    )


def list_data_sets(pattern: str = "*") -> list[str]:
    """Return the short names that :func:`load` knows, of those that match a shell-style pattern."""
    return DATA_SETS.names(pattern)


def _open(name: str, known: KnownSet | None, layout: TableLayout) -> Source:
    """Find the images that a name stands for."""
    if known is not None:
        return read_hub(known.repo, None, known.data_files, layout) if known.repo else read_digits()
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name) and not name.startswith("."):
        repo, _, config = name.partition(":")
        return read_hub(repo, config or None, None, layout)
    if "/" in name or name.startswith((".", "~")):
        raise UserError(f"The data folder {name} does not exist.")
    raise UserError(
        f"Unknown data set {name!r}: {nearest(name, DATA_SETS)} (the path of a folder of images and owner/name on the "
        "Hugging Face hub work too)"
    )


def _train_and_test(source: Source, name: str, seed: int) -> tuple[Labelled, Labelled]:
    if len(source.classes) < 2:
        raise UserError(f"The data set {name} has {len(source.classes)} classes: give one of at least two.")
    for split, part in (("train", source.train), ("test", source.test)):
        if part is not None and not len(part.labels):
            raise UserError(f"The data set {name} has no images in its {split} split.")
    if source.test is None:
        return set_aside(source.train, seed)
    return source.train, source.test


def _open_folder(folder: Path, layout: TableLayout, split_names: tuple[str, str | None] | None) -> Source:
    if not folder.exists():
        raise UserError(f"The data folder {folder} does not exist.")
    if not folder.is_dir():
        raise UserError(f"The data folder {folder} is a file: give the folder that it is in.")
    if parquet_files(folder):
        return read_parquet(folder, layout)
    # Image folders name their splits as their owner likes, whatever they are called on the hub.
    return read_folder(folder, split_names)


def _layout(
    known: KnownSet | None,
    split_names: tuple[str, str | None] | None,
    image_column: str | None,
    label_column: str | None,
) -> TableLayout:
    usual = known.layout if known else TableLayout()
    return TableLayout(
        split_names or usual.splits, image_column or usual.image_column, label_column or usual.label_column
    )


def _form(images: Images) -> tuple[tuple[int, int], int]:
    """Return the size to give images, and their channels, from a look at a few."""
    forms = [native_form(images, row) for row in sorted({len(images) * part // 16 for part in range(16)})]
    sizes = {size for size, _ in forms}
    if len(sizes) == 1 and max(forms[0][0]) <= PHOTO_SIZE:
        return forms[0]
    side = min(PHOTO_SIZE, *(min(size) for size in sizes))
    return (side, side), forms[0][1]


def _pair(image_size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < 1:
        raise UserError(f"image_size={image_size} is not a size in pixels: give 1 or more.")
    return height, width


def _augment(known: KnownSet | None, streaming: bool, size: tuple[int, int]) -> Augment:
    if known is None:
        return Augment(flip=True, crop_area=0.08) if streaming else Augment(flip=True, crop_padding=min(size) // 8)
    if known.augment.crop_area is not None and not streaming:
        return replace(known.augment, crop_area=None, crop_padding=min(size) // 8)
    return known.augment
