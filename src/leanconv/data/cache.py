"""Decoded images kept on disk, so that a data set is decoded once."""

import hashlib
import os
import uuid
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from leanconv.errors import UserError

_FORMAT = "1"


def cache_folder(cache_dir: str | Path | None) -> Path:
    """Return where decoded images are kept: ``cache_dir``, ``$LEANCONV_CACHE`` or ``~/.cache/leanconv``."""
    if cache_dir is None:
        cache_dir = os.environ.get("LEANCONV_CACHE") or Path.home() / ".cache" / "leanconv"
    return Path(cache_dir).expanduser()


def read_cached(path: Path) -> Tensor | None:
    """Return the images kept in a file, or ``None`` if there is none that is whole."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            images: Tensor = file.get_tensor("images")
    except (OSError, SafetensorError):
        return None
    if metadata.get("format") != _FORMAT or metadata.get("digest") != _digest(images):
        return None
    return images


def write_cached(path: Path, images: Tensor) -> None:
    """Keep images in a file, which appears under its name when it is whole.

    Raises:
        UserError: The folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        try:
            save_file({"images": images}, temporary, {"format": _FORMAT, "digest": _digest(images)})
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The cache folder {path.parent} cannot be written to ({error}): name another with cache_dir or "
            "LEANCONV_CACHE."
        ) from error


def _digest(images: Tensor) -> str:
    return hashlib.blake2b(images.contiguous().numpy().data, digest_size=16).hexdigest()
