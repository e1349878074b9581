"""``leanconv rf``: what a network can see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanconv.cli.console import messages, output, print_json
from leanconv.cli.options import Json, NetworkOptions, Width, network_options, numbers
from leanconv.errors import UserError


def rf(
    model: Annotated[str, typer.Argument(help="Name of a network; leanconv list shows them.")],
    width: Width = None,
    options: NetworkOptions = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size",
            help="Batch, channels, height, width.  [dim]\\[default: one image of the default size][/dim]",
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Picture to write: the field against depth, and where the image really counts."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what every layer and stage of a network sees of the image, over space and channels."""
    from leanconv.models import create_model
    from leanconv.receptive import effective_receptive_field, receptive_field

    size = tuple(int(length) for length in numbers("--input-size", input_size)) if input_size else None
    if size is not None and len(size) < 3:
        raise UserError(f"--input-size {input_size!r} has {len(size)} numbers: give batch, channels, height and width.")
    given = network_options(options, base_width=width, in_channels=None if size is None else size[1])
    network = create_model(model, **given)
    found = receptive_field(network, size)
    effective = effective_receptive_field(network, size) if plot is not None else None
    if plot is not None:
        from leanconv.receptive.picture import save_picture

        lengths = "×".join(map(str, found.input_size[2:]))
        save_picture(found, effective, plot, title=f"{model}: what it sees of an image of {lengths}")
        messages().print(f"Picture: {plot}", markup=False, soft_wrap=True)
    if as_json:
        record = {"model": network.config, **found.to_dict()}
        if effective is not None:
            record["effective"] = {"layer": effective.layer, "size": effective.size}
        print_json(record)
        return
    from leanconv.receptive.table import field_table, stage_table

    output().print(field_table(found, depth=None if layers else 2))
    output().print(stage_table(found))
