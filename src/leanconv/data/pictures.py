"""Images for super-resolution: luma planes of any size, by name, from a folder or from a parquet file."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from leanconv.data.decoding import decode, native_form, to_tensor
from leanconv.data.folders import image_files
from leanconv.data.photos import TEST, TRAIN, photo_files
from leanconv.data.sources import FileImages, Images
from leanconv.data.tables import image_column
from leanconv.errors import UserError, nearest
from leanconv.imresize import to_uint8
from leanconv.luma import luma

PHOTOS = "photos"
#: Which images each name trains and tests on; the classical test set goes with the classical training set.
SETS: dict[str, tuple[str | None, str | None]] = {
    "train291": ("train291", "set5"),
    "set5": (None, "set5"),
    "set14": (None, "set14"),
    "bsd100": (None, "bsd100"),
    "urban100": (None, "urban100"),
}
_HELD_OUT = 10


@dataclass(frozen=True, eq=False)
class Pictures:
    """Luma planes of images.

    Args:
        names: What each image is called.
        planes: (H, W) uint8 each.
    """

    names: tuple[str, ...]
    planes: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.planes)


def rgb_to_y(pixels: Tensor) -> Tensor:
    """Return the luma of an image in whole levels, as MATLAB's ``rgb2ycbcr`` does.

    Args:
        pixels: (3, H, W) or (1, H, W) uint8.  A grey image is its own luma, as the field has it.

    Returns:
        (H, W) uint8, 16 to 235 of a colour image.
    """
    return pixels[0] if len(pixels) == 1 else to_uint8(255 * luma(pixels.double() / 255))[0]


@dataclass(frozen=True, eq=False)
class PictureData:
    """A data set for super-resolution.

    Args:
        name: The name it was loaded by; of a local folder or file, its own name.
        train: Images to train on; none in a set that is for testing only.
        test: Images to report on.
    """

    name: str
    train: Pictures
    test: Pictures

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data it was trained on."""
        return {"name": self.name, "images": len(self.train)}


def load_pictures(name_or_path: str | Path = PHOTOS, *, folder: str | Path | None = None) -> PictureData:
    """Load a data set for super-resolution.

    Args:
        name_or_path: ``"photos"``, those that come with scikit-image; ``"train291"`` (tested on Set5), ``"set5"``,
            ``"set14"``, ``"bsd100"`` or ``"urban100"``; a parquet file with a column of images; or a folder: of
            images, of folders ``train`` and ``test`` with images, or of ``train*.parquet`` and ``test*.parquet``.
            Every tenth image, by name, is set aside for testing where a folder has no test images.
        folder: Where the named sets are: files such as ``set5.parquet`` or folders such as ``set5`` of images;
            by default ``$LEANCONV_DATA``, or the folder ``superres`` in it.

    Raises:
        UserError: There is no such data set, or an image cannot be read.
    """
    name = str(name_or_path)
    if folder is not None and name not in SETS:
        raise UserError(f"folder={str(folder)!r} goes with one of the names {', '.join(SETS)} only.")
    if name == PHOTOS:
        return PictureData(PHOTOS, *(_read(FileImages(photo_files(part)), list(part)) for part in (TRAIN, TEST)))
    if name in SETS:
        places = [Path(folder).expanduser()] if folder is not None else _default_places()
        parts = (_named(part, places) if part else Pictures((), ()) for part in SETS[name])
        return PictureData(name, *parts)
    path = Path(name).expanduser()
    if not name or not path.exists():
        if "/" in name or name.startswith((".", "~")):
            raise UserError(f"The data folder {name} does not exist.")
        known = nearest(name, [*SETS, PHOTOS])
        raise UserError(f"Unknown images {name!r}: {known} (the path of a folder or a parquet file works too)")
    return PictureData(path.resolve().name, *_train_and_test(path))


def _default_places() -> list[Path]:
    local = os.environ.get("LEANCONV_DATA")
    return [Path(local), Path(local) / "superres"] if local else []


def _named(name: str, places: Sequence[Path]) -> Pictures:
    for place in places:
        for path in (place / f"{name}.parquet", place / name):
            if path.exists():
                return _all(path)
    looked = " and ".join(str(place) for place in places) or "no folder, as $LEANCONV_DATA is not set"
    raise UserError(
        f"The images of {name!r} are not here (looked in {looked}): give the folder that holds {name}.parquet, or a "
        f"folder {name} of images, with folder (--data-folder)."
    )


def _train_and_test(path: Path) -> tuple[Pictures, Pictures]:
    if path.is_dir():
        parts = {re.split("[-._]", part.name)[0]: part for part in sorted(path.iterdir())}
        tests = [parts[split] for split in ("test", "validation", "valid", "val") if split in parts]
        if "train" in parts and tests:
            return _all(parts["train"]), _all(tests[0])
    whole = _all(path)
    if len(whole) < 2:
        # A single image can only be tested on.
        return Pictures((), ()), whole
    aside = set(range(0, len(whole), _HELD_OUT))
    kept = [row for row in range(len(whole)) if row not in aside]
    train, test = (
        Pictures(tuple(whole.names[row] for row in rows), tuple(whole.planes[row] for row in rows))
        for rows in (kept, sorted(aside))
    )
    return train, test


def _all(path: Path) -> Pictures:
    """Read every image of a parquet file or a folder."""
    if path.suffix == ".parquet":
        images, names = image_column(path)
        return _read(images, names)
    files = [path] if path.is_file() else image_files(path)
    if not files:
        raise UserError(f"The folder {path} has no image files.")
    return _read(FileImages(files), [file.stem for file in files])


def _read(images: Images, names: Sequence[str]) -> Pictures:
    planes = []
    for row in range(len(images)):
        _, channels = native_form(images, row)
        planes.append(rgb_to_y(to_tensor(decode(images, row, channels))))
    return Pictures(tuple(names), tuple(planes))
