"""The log of a run: rows of JSON and TensorBoard scalars."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanconv.errors import UserError, nearest

LOG, TENSORBOARD = "log.jsonl", "tensorboard"
KINDS = ("jsonl", "tensorboard")


class Logs:
    """Writes rows to ``log.jsonl`` and TensorBoard event files in a folder.

    A run that is resumed first drops the rows of steps it is going to repeat.

    Args:
        folder: Where the logs go.
        kinds: ``"jsonl"`` and ``"tensorboard"``, in any number.
        step: Optimizer steps already taken.

    Raises:
        UserError: A kind is not known, or its package is missing.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], step: int = 0) -> None:
        for kind in kinds:
            if kind not in KINDS:
                raise UserError(f"log={kind!r} is not known: {nearest(kind, KINDS)}")
        self._rows = None
        self._board = None
        if "jsonl" in kinds:
            _drop_rows_after(folder / LOG, step)
            self._rows = (folder / LOG).open("a", encoding="utf-8")
        if "tensorboard" in kinds:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise UserError('Training needs the "train" extra: pip install "leanconv[train]"') from None
            self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)

    def write(self, event: str, row: dict[str, Any]) -> None:
        """Log a row of numbers.

        Args:
            event: ``"step"`` or ``"epoch"``.
            row: Numbers by name; ``step`` is the optimizer step.
        """
        if self._rows:
            self._rows.write(json.dumps({"event": event} | row) + "\n")
            self._rows.flush()
        if self._board:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    self._board.add_scalar(f"{event}/{name}", value, row["step"])

    def close(self) -> None:
        """Flush and close the files."""
        if self._rows:
            self._rows.close()
        if self._board:
            self._board.close()


def _drop_rows_after(path: Path, step: int) -> None:
    """Keep the rows up to a step; a last row cut short by a kill is dropped with the rest."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if row["step"] > step:
            break
        kept.append(line + "\n")
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)
