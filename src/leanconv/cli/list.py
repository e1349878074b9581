"""``leanconv list``: the networks and their sizes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leanconv.cli.console import output, print_json
from leanconv.cli.options import Json
from leanconv.errors import UserError, nearest


def list_verb(
    pattern: Annotated[str, typer.Argument(help="Shell-style pattern, such as 'ran*'; quote it.")] = "*",
    as_json: Json = False,
) -> None:
    """List networks with parameters, multiply-accumulates at their default input, and paper."""
    rows = model_rows(pattern)
    if as_json:
        print_json(rows)
        return

    from rich.table import Table

    from leanconv.comparison import units

    table = Table("model", title=f"{len(rows)} model{'s' if len(rows) != 1 else ''}", title_justify="left")
    for heading in ("params", "MACs", "input"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("paper")
    for row in rows:
        size = "×".join(str(length) for length in row["input_size"])
        table.add_row(row["model"], units.count(row["params"]), units.count(row["macs"]), size, row["paper"])
    output().print(table)


def model_rows(pattern: str) -> list[dict[str, Any]]:
    """Return one JSON-able record for every network that matches ``pattern``.

    Raises:
        UserError: None matches.
    """
    from leanconv.measurement.zoo_counts import zoo_counts
    from leanconv.models import MODELS, list_models

    names = list_models(pattern)
    if not names:
        raise UserError(f"No model matches {pattern!r}: {nearest(pattern, list_models())}")
    rows = []
    for name in names:
        entry = MODELS[name]
        params, macs = zoo_counts(name)
        rows.append(
            {
                "model": name,
                "params": params,
                "macs": macs,
                "input_size": list(entry.input_size),
                "num_classes": entry.num_classes,
                "paper": entry.source.paper,
            }
        )
    return rows
