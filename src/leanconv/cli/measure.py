"""``leanconv measure``: what one forward pass costs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leanconv.cli.console import output, print_json
from leanconv.cli.options import Device, Json, Threads, Width, numbers
from leanconv.errors import UserError, nearest

DTYPES = ("float32", "bfloat16", "float16", "float64")


def measure(
    model: Annotated[str, typer.Argument(help="Name of a network; leanconv list shows them.")],
    width: Width = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size",
            help="Batch, channels, height, width.  [dim]\\[default: one image of the default size][/dim]",
        ),
    ] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Time the forward pass.")] = False,
    roofline: Annotated[bool, typer.Option("--roofline", help="Measure the least time this device allows.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    threads: Threads = None,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help=f"One of {', '.join(DTYPES)}.")] = None,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Channels innermost in memory.")] = False,
    as_json: Json = False,
) -> None:
    """Measure parameters, multiply-accumulates, bytes moved and memory of a network; on request its latency."""
    import torch

    from leanconv.measurement import measure as run
    from leanconv.models import create_model

    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"--dtype {dtype!r} is not known: {nearest(dtype, DTYPES)}")
    size = tuple(int(length) for length in numbers("--input-size", input_size)) if input_size else None
    if size is not None and len(size) < 3:
        raise UserError(f"--input-size {input_size!r} has {len(size)} numbers: give batch, channels, height and width.")
    options: dict[str, Any] = {} if width is None else {"base_width": width}
    if size is not None:
        options["in_channels"] = size[1]
    report = run(
        create_model(model, **options),
        size,
        latency=latency,
        roofline=roofline,
        device=device,
        dtype=getattr(torch, dtype) if dtype else None,
        threads=threads,
        channels_last=channels_last,
    )
    if as_json:
        print_json(report.to_dict())
        return
    from leanconv.measurement.table import report_table

    output().print(report_table(report, depth=None if layers else 1))
