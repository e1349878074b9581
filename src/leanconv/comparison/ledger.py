"""A comparison's folder: which settings its runs share and which runs are finished."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leanconv.comparison.record import Run
from leanconv.errors import UserError

_NAMED = 3


class Ledger:
    """The finished and begun runs of a comparison on disk.

    The folder holds ``settings.json`` and, for every model and seed, ``runs/<model>/seed<n>/`` with what
    training writes there and ``run.json`` once the run is finished.  Models and seeds may be added to a folder
    later; everything else a run depends on is in the settings and must stay the same.

    Args:
        folder: Folder of the comparison; made when missing.
        settings: JSON-able values that all runs share.

    Attributes:
        folder: Folder of the comparison.
        settings: What all runs share, as JSON gives it back.

    Raises:
        UserError: The folder was begun with other settings, and the message names what differs; or it cannot be
            written to.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any]) -> None:
        self.folder = Path(folder)
        path = self.folder / "settings.json"
        # Through JSON once, so that tuples and lists compare equal.
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        if path.exists():
            _refuse_other_settings(self.folder, _read(path), self.settings)
        else:
            if self.folder.exists() and not self.folder.is_dir():
                raise UserError(f"output_dir={str(folder)!r} is a file: name a folder.")
            write_json(path, self.settings)

    @classmethod
    def existing(cls, folder: str | Path) -> Ledger:
        """Return the ledger of a folder that was begun before, with its settings.

        Raises:
            UserError: The folder holds no comparison.
        """
        path = Path(folder) / "settings.json"
        if not path.exists():
            raise UserError(f"Folder {str(folder)!r} holds no comparison: there is no settings.json in it.")
        return cls(folder, _read(path))

    def run_folder(self, model: str, seed: int) -> Path:
        """Return the folder of one run."""
        return self.folder / "runs" / model / f"seed{seed}"

    def finished(self, model: str, seed: int) -> Run | None:
        """Return a run if it is finished."""
        path = self.run_folder(model, seed) / "run.json"
        return Run(**_read(path)) if path.exists() else None

    def all_finished(self) -> list[Run]:
        """Return every finished run, by model and seed."""
        found = [Run(**_read(path)) for path in self.folder.glob("runs/*/seed*/run.json")]
        return sorted(found, key=lambda run: (run.model, run.seed))

    def record(self, run: Run) -> None:
        """Note that a run is finished."""
        write_json(self.run_folder(run.model, run.seed) / "run.json", asdict(run))


def write_json(path: Path, record: Any) -> None:
    """Write a JSON file so that readers see the old or the new one, never half of it.

    Raises:
        UserError: It cannot be written, for example because the disk is full.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written to: {error.strerror}.") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise UserError(f"{str(path)!r} is damaged ({error}): remove its folder or name another one.") from error


def _refuse_other_settings(folder: Path, begun: dict[str, Any], asked: dict[str, Any]) -> None:
    before, now = dict(flat(begun)), dict(flat(asked))
    differing = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if not differing:
        return
    named = [f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in differing[:_NAMED]]
    more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
    raise UserError(
        f"output_dir={str(folder)!r} holds runs with other settings ({'; '.join(named)}{more}): "
        "name another folder, or ask for the same settings to continue."
    )


def flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dictionaries with their keys joined by dots."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
