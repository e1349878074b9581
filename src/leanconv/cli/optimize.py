"""``leanconv optimize``: a network rewritten from what it can see."""

from __future__ import annotations

from typing import Annotated

import typer

from leanconv.cli.console import output, print_json
from leanconv.cli.options import Json, NetworkOptions, Width, between, network_options, numbers
from leanconv.errors import UserError

_BUDGET = "Budget, as a share of the original's"


def optimize(
    model: Annotated[str, typer.Argument(help="Name of a VGG, MobileNet, ResNet or RAN; leanconv list shows them.")],
    width: Width = None,
    options: NetworkOptions = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size",
            help="Batch, channels, height, width.  [dim]\\[default: one image of the default size][/dim]",
        ),
    ] = None,
    remove_only: Annotated[
        bool, typer.Option("--remove-only", help="Remove units of saturated stages, and put them nowhere else.")
    ] = False,
    keep_stages: Annotated[bool, typer.Option("--keep-stages", help="Leave all units where they are.")] = False,
    kernel: Annotated[
        str | None,
        typer.Option(
            help="What replaces standard convolutions: dw+pw or dw+rpw.  [dim]\\[default: they are kept][/dim]"
        ),
    ] = None,
    groups: Annotated[
        int, typer.Option(callback=between("--groups", 1, 4096), help="Groups of rolling pointwise convolutions.")
    ] = 2,
    overlap: Annotated[float, typer.Option(help="Overlap of their windows, from 0 to below 1.")] = 0.5,
    params: Annotated[float | None, typer.Option(help="Most parameters.", rich_help_panel=_BUDGET)] = None,
    macs: Annotated[float, typer.Option(help="Most multiply-accumulates.", rich_help_panel=_BUDGET)] = 1.0,
    latency: Annotated[
        float | None, typer.Option(help="Most time of a forward pass here.", rich_help_panel=_BUDGET)
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="Time the forward pass before and after.")] = False,
    as_json: Json = False,
) -> None:
    """Remove or move units of saturated stages, and replace kernels, without any training.

    The last line names the arguments that build the result; train it once, as any other network.
    """
    from leanconv.receptive import optimize as run
    from leanconv.receptive.table import optimized_table

    size = tuple(int(length) for length in numbers("--input-size", input_size)) if input_size else None
    if size is not None and len(size) < 3:
        raise UserError(f"--input-size {input_size!r} has {len(size)} numbers: give batch, channels, height and width.")
    found = run(
        model,
        size,
        organize_stages=not keep_stages,
        move=not remove_only,
        kernel=kernel,  # type: ignore[arg-type]
        groups=groups,
        overlap=overlap,
        params=params,
        macs=macs,
        latency=latency,
        time=time,
        **network_options(options, base_width=width, in_channels=None if size is None else size[1]),
    )
    if as_json:
        print_json(found.to_dict())
        return
    output().print(optimized_table(found))
    arguments = ", ".join(f"{name}={value!r}" for name, value in found.kwargs.items())
    built = f'create_model("{found.name}", {arguments})'
    if found.kernel:
        chosen = ", ".join(f"{name}={value!r}" for name, value in found.kernel.items())
        built = f"decompose({built}, {chosen}).model"
    output().print(built, markup=False, soft_wrap=True)
