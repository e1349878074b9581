"""Write ``docs/models.md``: every network of the zoo, where it comes from and what it costs.

python docs/generate_models.py
"""

from itertools import groupby
from pathlib import Path

import torch

from leanconv.measurement import count_macs, count_params
from leanconv.models import MODELS, create_model
from leanconv.models.zoo import ModelEntry

PAGE = Path(__file__).with_name("models.md")
HEAD = """# Networks

Written by `python docs/generate_models.py`. Parameters are all learnable values, batch norm included; MACs are the
multiply-accumulates of convolutions and linear layers for one image of the size given. *Published* is what the source
prints, rounded as there. What a paper leaves open is *our reading*.
"""


def row(name: str, entry: ModelEntry) -> str:
    """Return one line of the table, counted without computing anything."""
    with torch.device("meta"):
        model = create_model(name)
    size = "x".join(str(side) for side in entry.input_size)
    params, macs = count_params(model), count_macs(model, (1, *entry.input_size))
    return f"| `{name}` | {size} | {entry.num_classes or ''} | {params:,} | {macs:,} | {entry.published} |"


def section(source_entries: list[tuple[str, ModelEntry]]) -> str:
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
        *(row(name, entry) for name, entry in source_entries),
    ]
    return "\n".join(lines)


def page() -> str:
    """Return the whole page."""
    entries = sorted(
        ((name, MODELS[name]) for name in MODELS), key=lambda item: (item[1].source.paper, item[1].source.certain)
    )
    groups = groupby(entries, key=lambda item: item[1].source)
    return "\n\n".join([HEAD.strip(), *(section(list(group)) for _, group in groups)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE}: {len(MODELS)} networks")
