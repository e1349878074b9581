"""The photographs that come with scikit-image, for which nothing is downloaded."""

from importlib.util import find_spec
from pathlib import Path

from leanconv.errors import UserError

TRAIN = ("astronaut", "brick", "camera", "coffee", "coins", "grass", "gravel", "motorcycle_left", "rocket")
TEST = ("chelsea", "moon", "motorcycle_right")
_SUFFIXES = (".png", ".jpg")


def photo_files(names: tuple[str, ...]) -> list[Path]:
    """Return the files of photographs.

    Args:
        names: Some of :data:`TRAIN` and :data:`TEST`.

    Raises:
        UserError: scikit-image is missing, or came without one of them.
    """
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise UserError('The photographs of scikit-image need the "train" extra: pip install "leanconv[train]".')
    folder = Path(package.origin).parent / "data"
    found = []
    for name in names:
        files = [folder / f"{name}{suffix}" for suffix in _SUFFIXES if (folder / f"{name}{suffix}").is_file()]
        if not files:
            raise UserError(f"scikit-image came without its photograph {name!r}: install it from its wheel.")
        found += files
    return found
