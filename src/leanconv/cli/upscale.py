"""``leanconv upscale``: pictures enlarged by a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanconv.cli.console import MISTAKE, interruptible, messages, output, print_json
from leanconv.cli.options import Device, Json, NetworkOptions, between, network_options
from leanconv.errors import UserError, nearest

if TYPE_CHECKING:
    from leanconv.upscaling import Upscaled


def upscale(
    sources: Annotated[list[Path], typer.Argument(metavar="PICTURE", help="Picture files, or folders of them.")],
    target: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; a folder for several pictures, made if need be.")
    ],
    model: Annotated[
        str,
        typer.Option(help="Name of a network, such as vdsr or ran_drrn_b1u9. Or a file of leanconv compress."),
    ],
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Its weights or a checkpoint, as .safetensors.")
    ] = None,
    scale: Annotated[int, typer.Option(callback=between("--scale", 2, 16), help="Factor on both sides.")] = 2,
    settings: NetworkOptions = None,
    tile: Annotated[
        int | None,
        typer.Option(
            callback=between("--tile", 0, 65_536),
            help="Side of the pieces that are computed at once, in pixels of the picture; 0 never cuts. The result is "
            "the same.  [dim]\\[default: what fits into 384 MiB][/dim]",
        ),
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Of files in a folder: png, jpg, tif or webp.  [dim]\\[default: that of each picture][/dim]",
        ),
    ] = None,
    quality: Annotated[
        int, typer.Option(callback=between("--quality", 1, 100), help="Of JPEG and WebP files, 1 to 100.")
    ] = 95,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Enlarge pictures: any size, in pieces without seams; grey, colour, transparency, 8 and 16 bits.

    Of several pictures those that fail are listed at the end, and the others are done.
    """
    from leanconv.upscaling import Upscaler, load_network
    from leanconv.upscaling.files import check_target, upscale_file
    from leanconv.upscaling.picture import require_superres_extra

    require_superres_extra()
    jobs = plan(sources, target, scale, format_name)
    alone = len(jobs) == 1
    if alone:
        check_target(*jobs[0], overwrite=overwrite)
    network = load_network(model, weights, scale, **network_options(settings))
    upscaler = Upscaler(network, scale, tile=tile, device=device)
    if jobs[0][1] != target:
        _make_folder(target)
    records: list[Upscaled] = []
    failures: dict[str, str] = {}
    written: dict[Path, Path] = {}
    with interruptible("pictures written so far are whole, the one at hand was not written."), _progress() as report:
        for number, (source, path) in enumerate(jobs, 1):
            name = source.name if alone else f"{source.name} ({number} of {len(jobs)})"
            try:
                if path in written:
                    raise UserError(f"`target` {str(path)!r} holds {written[path]} enlarged: give another --format.")
                records.append(
                    upscale_file(upscaler, source, path, quality=quality, overwrite=overwrite, on_tile=report(name))
                )
                written[path] = source
            except UserError as error:
                if alone:
                    raise
                failures[str(source)] = " ".join(str(error).split())
    if as_json:
        print_json(
            {
                "model": getattr(network, "config", model),
                "weights": weights and str(weights),
                "scale": scale,
                "pictures": [record.to_dict() for record in records],
                "failures": failures,
            }
        )
    else:
        _show(records)
    if failures:
        messages().print(f"Error: {len(failures)} of {len(jobs)} pictures were not written:", style="red", markup=False)
        for sentence in failures.values():
            messages().print(f"  {sentence}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(MISTAKE)


def plan(sources: list[Path], target: Path, scale: int, format_name: str | None) -> list[tuple[Path, Path]]:
    """Return which picture goes to which file.

    Args:
        sources: Files, and folders of files.
        target: A file for one file; else a folder, in which names end in ``_x2`` and the like.
        scale: The factor.
        format_name: A suffix without its dot, for files in a folder.

    Raises:
        UserError: A folder holds no pictures, the format is not known, or one file is named for several pictures.
    """
    from leanconv.data.folders import SUFFIXES
    from leanconv.upscaling.picture import FORMATS

    known = [suffix.removeprefix(".") for suffix in FORMATS]
    if format_name is not None and format_name not in known:
        raise UserError(f"--format {format_name!r} is not known: {nearest(format_name, known)}")
    into_folder = target.is_dir() or len(sources) > 1 or any(source.is_dir() for source in sources)
    if not into_folder:
        if format_name is not None:
            raise UserError("--format goes with a folder: the suffix of -o says the format of one file.")
        return [(sources[0], target)]
    if target.exists() and not target.is_dir():
        raise UserError(f"-o {str(target)!r} is a file: name a folder for several pictures.")
    files: list[Path] = []
    for source in sources:
        if not source.is_dir():
            files.append(source)
            continue
        found = sorted(file for file in source.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        files += (shown := [file for file in found if not file.name.startswith(".")])
        if not shown:
            raise UserError(f"The folder {source} holds no pictures.")
    jobs = []
    for file in files:
        own = file.suffix if file.suffix.lower() in FORMATS else ".png"
        suffix = own if format_name is None else f".{format_name}"
        jobs.append((file, target / f"{file.stem}_x{scale}{suffix}"))
    return jobs


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"-o {str(folder)!r} cannot be made a folder ({error.strerror}).") from error


def _show(records: list[Upscaled]) -> None:
    for record in records:
        (width, height), (wide, high) = record.size, record.enlarged_size
        pieces = "one piece" if record.tiles == 1 else f"{record.tiles} pieces"
        output().print(
            f"{record.source} ({width}×{height}) to {record.target} ({wide}×{high}), {record.bits} bits, in {pieces}, "
            f"{record.seconds:.1f} s",
            markup=False,
            soft_wrap=True,
        )


@contextmanager
def _progress() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Show how many pieces of a picture are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = messages()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Upscaling", total=None)

        def report(name: str) -> Callable[[int, int], None]:
            bar.reset(task, total=None, description=name)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield report
