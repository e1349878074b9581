"""``leanconv compare``: train networks alike and measure them side by side."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanconv.cli.console import interruptible, messages, output, print_json
from leanconv.cli.options import (
    Data,
    DataFolder,
    Device,
    Epochs,
    Json,
    Overrides,
    RecipeFile,
    Threads,
    Width,
    between,
    default_recipe,
    names,
)
from leanconv.errors import UserError

if TYPE_CHECKING:
    from leanconv.comparison import Run


def compare(
    models: Annotated[list[str], typer.Argument(help="Names of networks; leanconv list shows them.")],
    data: Data,
    epochs: Epochs = None,
    seeds: Annotated[int, typer.Option(callback=between("--seeds", 1, 1000), help="Trainings of every network.")] = 2,
    recipe: RecipeFile = None,
    changes: Overrides = None,
    width: Width = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Network that ratios are taken to.  [dim]\\[default: the one with most multiply-accumulates][/dim]"
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of runs and report; finished runs in it are not repeated.  "
            "[dim]\\[default: runs/compare-<data>][/dim]",
        ),
    ] = None,
    threads: Threads = None,
    device: Device = None,
    engines: Annotated[
        str | None,
        typer.Option(
            "--engines",
            metavar="NAME,…",
            help="Also time the trained networks, folded, on the CPU in eager, compile, onnxruntime, openvino, "
            "torch.export, aotinductor or executorch.",
        ),
    ] = None,
    data_folder: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Train networks alike and measure them side by side; the report goes to a folder.

    Ratios are multiples of the baseline's.  The same command continues where it was interrupted.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("leanconv compare runs in one process, not under torchrun: times would disturb each other.")

    from leanconv.comparison import compare as run
    from leanconv.comparison import engine_table, require_plot_extra, table, write_report
    from leanconv.data import load
    from leanconv.training import load_recipe

    require_plot_extra()
    target = folder or Path("runs") / f"compare-{Path(data).name}"
    plan = load_recipe(recipe or default_recipe(data), changes or [], epochs=epochs)
    images = load(data, folder=data_folder)
    with interruptible(f"the same command goes on where it stopped, finished runs are kept in {target}."):
        comparison = run(
            models,
            images,
            plan,
            target,
            width=width,
            seeds=seeds,
            baseline=baseline,
            threads=threads,
            device=device,
            engines=names("--engines", engines) if engines is not None else (),
            on_run=RunLines(len(models) * seeds),
        )
        command = _command(
            models,
            data=data,
            width=width,
            epochs=epochs,
            seeds=seeds,
            recipe=recipe,
            baseline=baseline,
            threads=threads,
            engines=engines,
        )
        for change in changes or []:
            command += f" --set {shlex.quote(change)}"
        files = write_report(comparison, target, command=command)
    if as_json:
        print_json(comparison.to_dict())
        return
    output().print(table(comparison))
    if comparison.engines:
        output().print(engine_table(comparison))
    messages().print(f"Report: {', '.join(map(str, files.values()))}", markup=False, soft_wrap=True)


def _command(models: list[str], **options: object) -> str:
    given = [part for name, value in options.items() if value is not None for part in (f"--{name}", str(value))]
    return shlex.join(["leanconv", "compare", *models, *given])


class RunLines:
    """Prints a line before and after every run.

    Args:
        total: Runs in all.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._begun = False

    def __call__(self, model: str, seed: int, run: Run | None) -> None:
        """Report that a run begins (``run`` is None) or is finished."""
        from leanconv.comparison import units

        if run is None:
            self._begun = True
            messages().print(f"[bold]{model}[/bold], seed {seed}: run {self._done + 1} of {self._total}")
            return
        self._done += 1
        when = f"in {units.duration(run.seconds)}" if self._begun else "earlier"
        self._begun = False
        messages().print(f"[bold]{model}[/bold], seed {seed}: {units.percent(run.accuracy)}, trained {when}")
