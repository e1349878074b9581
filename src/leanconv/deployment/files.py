"""Files that appear whole, together, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leanconv.errors import UserError


@contextmanager
def written_together(path: Path) -> Iterator[Path]:
    """Give a file of the same name in a temporary folder beside ``path`` to write to.

    What was written there, with any file that belongs to it (the weights of OpenVINO's IR), takes its place when the
    block ends without an error; else nothing remains.

    Raises:
        UserError: The folder does not exist or cannot be written to.
    """
    if path.is_dir():
        raise UserError(f"`path` {str(path)!r} is a folder: name a file in it.")
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise UserError(
            f"`path` {str(path)!r} cannot be written ({error.strerror}): name a file in a folder that exists and "
            "is yours to write to."
        ) from error
    try:
        yield folder / path.name
        try:
            # The file that was asked for comes last: when it is there, so is everything it refers to.
            for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
                os.replace(file, path.with_name(file.name))
        except OSError as error:
            raise UserError(f"`path` {str(path)!r} cannot be written ({error.strerror}).") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
