"""Where benchmarks leave their results: one JSON file a benchmark, checked in, with the machine and the date."""

import json
import os
from pathlib import Path
from typing import Any

from leanconv.measurement import environment

RESULTS = Path(__file__).parent / "results"


def write_results(name: str, payload: dict[str, Any], *, folder: Path = RESULTS) -> Path:
    """Write ``{"environment": …, **payload}`` to ``folder/{name}.json``, whole or not at all.

    Args:
        name: Of the benchmark, without a suffix.
        payload: JSON-able results.  An ``environment`` of its own (of a GPU, say) replaces the one taken here.
        folder: Where the file goes; ``benchmarks/results`` by default.

    Returns:
        The file written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    text = json.dumps({"environment": environment(), **payload}, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
