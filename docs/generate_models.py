"""Write ``docs/models.md``: every network of the zoo, where it comes from and what it costs.

The counts go into the package too, so that listing the zoo need not build it.

python docs/generate_models.py
"""

import json
from itertools import groupby
from pathlib import Path

from leanconv.measurement.zoo_counts import ZOO_COUNTS, counted
from leanconv.models import MODELS
from leanconv.models.zoo import ModelEntry

PAGE = Path(__file__).with_name("models.md")
HEAD = """# Networks

Written by `python docs/generate_models.py`. Parameters are all learnable values, batch norm included; MACs are the
multiply-accumulates of convolutions and linear layers for one image of the size given. *Published* is what the source
prints, rounded as there. What a paper leaves open is *our reading*.
"""


def row(name: str, entry: ModelEntry, params: int, macs: int) -> str:
    """Return one line of the table."""
    size = "x".join(str(side) for side in entry.input_size)
    return f"| `{name}` | {size} | {entry.num_classes or ''} | {params:,} | {macs:,} | {entry.published} |"


def section(source_entries: list[tuple[str, ModelEntry]], counts: dict[str, tuple[int, int]]) -> str:
    """Return the networks of one source under a heading."""
    source = source_entries[0][1].source
    lines = [
        f"## {source.paper}",
        "",
        f"Certain: {source.certain}.",
        *([f"Our reading: {source.chosen}."] if source.chosen else []),
        "",
        "| name | input | classes | parameters | MACs | published |",
        "|---|---|---|---|---|---|",
        *(row(name, entry, *counts[name]) for name, entry in source_entries),
    ]
    return "\n".join(lines)


def page(counts: dict[str, tuple[int, int]]) -> str:
    """Return the whole page."""
    entries = sorted(
        ((name, MODELS[name]) for name in MODELS), key=lambda item: (item[1].source.paper, item[1].source.certain)
    )
    groups = groupby(entries, key=lambda item: item[1].source)
    return "\n\n".join([HEAD.strip(), *(section(list(group), counts) for _, group in groups)]) + "\n"


if __name__ == "__main__":
    counts = {name: counted(name) for name in sorted(MODELS)}
    lines = (f"  {json.dumps(name)}: {json.dumps(pair)}" for name, pair in counts.items())
    ZOO_COUNTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    PAGE.write_text(page(counts))
    print(f"{PAGE}, {ZOO_COUNTS}: {len(counts)} networks")
