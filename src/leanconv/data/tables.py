"""Data sets that are tables of encoded images and labels: on the Hugging Face hub, or a folder of parquet files."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from leanconv.data.sources import SPLITS, ColumnImages, Labelled, Source, choose_splits
from leanconv.errors import UserError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "class", "target", "fine_label")

MOST_CLASSES = 1_000_000
"""Numbers from here on are identifiers, not labels that count classes."""


@dataclass(frozen=True)
class TableLayout:
    """Which splits and columns of a table to read; ``None`` finds them."""

    splits: tuple[str, str | None] | None = None
    image_column: str | None = None
    label_column: str | None = None


def read_hub(repo: str, config: str | None, data_files: Mapping[str, str] | None, layout: TableLayout) -> Source:
    """Read a data set of the Hugging Face hub; it is downloaded once, to where ``datasets`` keeps such things.

    Args:
        repo: ``owner/name``.
        config: Which of its configurations.
        data_files: Only these files, by split.
        layout: Which splits and columns.

    Raises:
        UserError: It cannot be reached, or is not a table of images and labels.
    """
    return _read(f"data set {repo}", layout, repo, name=config, data_files=data_files and dict(data_files))


def read_parquet(folder: Path, layout: TableLayout) -> Source:
    """Read a folder of files ``<split>*.parquet``, or of folders ``<split>`` with parquet files.

    Raises:
        UserError: A file is not readable, or they are not tables of images and labels.
    """
    files: dict[str, list[str]] = {}
    for path in parquet_files(folder):
        split = path.parent.name if path.parent.name in SPLITS else re.split("[-._]", path.name)[0]
        files.setdefault(split, []).append(str(path))
    where = f"folder {folder}"
    chosen = choose_splits(list(files), layout.splits, where)
    wanted = {split: files[split] for split in chosen if split is not None}
    return _read(where, replace(layout, splits=chosen), "parquet", data_files=wanted)


def parquet_files(folder: Path) -> list[Path]:
    """Return the parquet files of a folder, or of the folders in it (as those of the hub have them).

    Raises:
        UserError: Several folders, not named after splits, have such files.
    """
    files = sorted(folder.glob("*.parquet")) or sorted(folder.glob("*/*.parquet"))
    folders = sorted({path.parent.name for path in files} - SPLITS)
    if len(folders) > 1:
        raise UserError(f"The folder {folder} has parquet files in {', '.join(folders)}: give one of these folders.")
    return files


def image_column(path: Path) -> tuple[ColumnImages, list[str]]:
    """Return the images of a parquet file, and their names if it has a column ``name``, else their numbers.

    Raises:
        UserError: The file is not readable, or has no images.
    """
    where = f"file {path}"
    table = _tables(where, "parquet", data_files={"images": str(path)})["images"]
    column = _column(table, None, IMAGE_COLUMNS, "image", where)
    names = [str(name) for name in table["name"]] if "name" in table.column_names else [*map(str, range(len(table)))]
    return _encoded_images(table, column, where), names


def _read(where: str, layout: TableLayout, *arguments: Any, **keywords: Any) -> Source:
    tables = _tables(where, *arguments, **keywords)
    train, test = choose_splits(list(tables), layout.splits, where)
    image = _column(tables[train], layout.image_column, IMAGE_COLUMNS, "image", where)
    label = _column(tables[train], layout.label_column, LABEL_COLUMNS, "label", where)
    classes = _classes([tables[name] for name in (train, test) if name], label, where)

    def labelled(split: str) -> Labelled:
        table = tables[split]
        images = _encoded_images(table, image, f"split {split!r} of {where}")
        return Labelled(images, _numbers(table, label, classes, f"split {split!r} of {where}"))

    return Source(tuple(classes), labelled(train), labelled(test) if test else None)


def _tables(where: str, *arguments: Any, **keywords: Any) -> Any:
    """Return what ``datasets.load_dataset`` reads."""
    try:
        import datasets
    except ImportError as error:
        raise UserError('Reading data needs the "train" extra: pip install "leanconv[train]".') from error

    try:
        with _quiet_off_terminal(datasets):
            tables = datasets.load_dataset(*arguments, **keywords)
    # What datasets and huggingface_hub raise shares no other base; a broken parquet file is among them.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"The {where} cannot be read (a local copy works too): {reason}") from error
    return tables


def _encoded_images(table: Any, column: str, where: str) -> ColumnImages:
    """Return a column of images, which ``datasets`` is kept from decoding."""
    import datasets

    if isinstance(table.features[column], datasets.Image):
        table = table.cast_column(column, datasets.Image(decode=False))
    return ColumnImages(table.select_columns([column]), column, where)


@contextmanager
def _quiet_off_terminal(datasets: Any) -> Iterator[None]:
    """Let ``datasets`` draw its progress bars on a terminal only."""
    quiet = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    if quiet:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            datasets.enable_progress_bars()


def _column(table: Any, wanted: str | None, usual: Sequence[str], what: str, where: str) -> str:
    names = (wanted,) if wanted is not None else usual
    for name in names:
        if name in table.column_names:
            return name
    raise UserError(
        f"The {where} has no column {' or '.join(repr(name) for name in names)}; its columns are "
        f"{', '.join(repr(name) for name in table.column_names)}: name one with {what}_column."
    )


def _classes(tables: Sequence[Any], column: str, where: str) -> list[str]:
    """Return the names of the classes: declared, or the labels that occur, in order."""
    declared = getattr(tables[0].features[column], "names", None)
    if declared:
        return list(declared)
    found = {value for table in tables for value in table.unique(column)} - {None}
    if all(isinstance(value, str) for value in found):
        return sorted(found)
    if all(isinstance(value, int) for value in found):
        largest = max(found, default=-1)
        if largest >= MOST_CLASSES:
            raise UserError(
                f"The {where} has the label {largest} in column {column!r}: number the classes from 0, or make the "
                "labels strings."
            )
        return [str(number) for number in range(largest + 1)]
    raise UserError(
        f"The {where} has a column {column!r} of {tables[0].features[column]}: labels are strings or whole numbers."
    )


def _numbers(table: Any, column: str, classes: Sequence[str], where: str) -> torch.Tensor:
    values = table.with_format("arrow")[:].column(column).to_pylist()
    if any(isinstance(value, str) for value in values):
        numbers = {name: number for number, name in enumerate(classes)}
        values = [numbers.get(value, -1) for value in values]
    values = [-1 if value is None else value for value in values]
    for row, value in enumerate(values):
        if not 0 <= value < len(classes):
            raise UserError(
                f"Row {row} of {where} has none of the {len(classes)} classes in column {column!r}: leave such a split "
                "out with split_names=(train, test)."
            )
    return torch.tensor(values, dtype=torch.int64)
