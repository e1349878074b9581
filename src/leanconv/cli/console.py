"""What the command line prints, and how it ends.

Results go to standard output, progress and mistakes to standard error.  Under ``torchrun`` only the first process
prints.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

MISTAKE = 2
INTERRUPTED = 130


def is_first_process() -> bool:
    """Return whether this process prints: the only one, or rank 0 of several."""
    return os.environ.get("RANK", "0") == "0"


def output() -> Console:
    """Return the console of results."""
    return Console(quiet=not is_first_process(), highlight=False)


def messages() -> Console:
    """Return the console of progress and mistakes."""
    return Console(stderr=True, quiet=not is_first_process(), highlight=False)


def print_json(record: Any) -> None:
    """Print a record alone on standard output; numbers that JSON does not know, NaN and infinity, become null."""
    if is_first_process():
        sys.stdout.write(json.dumps(_with_nulls(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _with_nulls(record: Any) -> Any:
    if isinstance(record, dict):
        return {key: _with_nulls(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [_with_nulls(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def fail(sentence: str) -> typer.Exit:
    """Print a user's mistake and return the exit to raise."""
    messages().print(f"Error: {' '.join(sentence.split())}", style="red", markup=False, soft_wrap=True)
    return typer.Exit(MISTAKE)


@contextmanager
def interruptible(sentence: str) -> Iterator[None]:
    """Turn Ctrl-C into ``sentence``, which says how to go on, and exit status 130."""
    try:
        yield
    except KeyboardInterrupt:
        messages().print(f"Interrupted: {sentence}", markup=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
