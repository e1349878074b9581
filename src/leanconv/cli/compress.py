"""``leanconv compress``: make a trained network smaller, and save it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanconv.cli.console import interruptible, messages, output, print_json
from leanconv.cli.normalisation import Mean, Normalisation, Std, renormalised
from leanconv.cli.options import (
    Data,
    DataFolder,
    Device,
    Json,
    Overrides,
    RecipeFile,
    Threads,
    Width,
    between,
    overrides,
)
from leanconv.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from leanconv.compression.conversion import OnProgress
    from leanconv.data import ImageData

FINETUNE_RECIPE = "finetune"
CALIBRATION_BATCH = 128


def compress(
    model: Annotated[str, typer.Argument(help="Name of a network; leanconv list shows them.")],
    weights: Annotated[Path, typer.Option("--weights", help="Its weights or a checkpoint, as .safetensors.")],
    data: Data,
    macs: Annotated[float | None, typer.Option(help="Multiply-accumulates to keep, such as 0.5.")] = None,
    params: Annotated[float | None, typer.Option(help="Parameters to keep, instead.")] = None,
    latency: Annotated[float | None, typer.Option(help="Time of one image on this device to keep, instead.")] = None,
    finetune_epochs: Annotated[
        int,
        typer.Option(
            callback=between("--finetune-epochs", 0, 100_000), help="Epochs of training, distilled from the original."
        ),
    ] = 0,
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write.  [dim]\\[default: <model>-lean.safetensors][/dim]"),
    ] = None,
    images: Annotated[
        int, typer.Option(callback=between("--images", 1, 1_000_000), help="Training images to calibrate on.")
    ] = 1000,
    positions: Annotated[
        int,
        typer.Option(callback=between("--positions", 1, 1_000_000), help="Positions of each feature map to fit on."),
    ] = 64,
    batch_norm: Annotated[
        bool,
        typer.Option("--batch-norm/--no-batch-norm", help="Re-estimate statistics of batch norm after the conversion."),
    ] = False,
    recipe: RecipeFile = None,
    changes: Overrides = None,
    width: Width = None,
    seed: Annotated[int, typer.Option(callback=between("--seed", 0, 2**31 - 1), help="Of the calibration.")] = 0,
    mean: Mean = None,
    std: Std = None,
    normalisation: Normalisation = None,
    threads: Threads = None,
    device: Device = None,
    folder: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Replace convolutions of a trained network by fitted factorisations, within one budget.

    Test accuracy is reported before, after, and after fine-tuning.
    """
    from leanconv.comparison import build_model
    from leanconv.compression import compress as run
    from leanconv.compression import reestimate_batch_norm, save
    from leanconv.data import load
    from leanconv.training import load_recipe, load_weights

    path = target or Path(f"{model}-lean.safetensors")
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise UserError(f"-o {str(path)!r} must be a .safetensors file in a folder that exists.")
    if not finetune_epochs and (recipe or changes):
        raise UserError("--recipe and --set are about fine-tuning: give --finetune-epochs too.")
    plan = (
        load_recipe(recipe or FINETUNE_RECIPE, overrides(changes, epochs=finetune_epochs)) if finetune_epochs else None
    )
    split = renormalised(load(data, folder=folder), normalisation, mean, std)
    original = load_weights(build_model(model, split, width), weights).eval()
    if device is not None:
        original.to(device)
    calibration = calibration_batches(split, images, seed)
    accuracy = {"original": _accuracy(original, split)}
    with interruptible(f"{path} was not written."):
        with _progress() as on_progress:
            result = run(
                original,
                calibration,
                macs=macs,
                params=params,
                latency=latency,
                threads=threads,
                images=images,
                positions=positions,
                seed=seed,
                on_progress=on_progress,
            )
        if batch_norm:
            reestimate_batch_norm(result.model, calibration, images=images)
        accuracy["compressed"] = _accuracy(result.model, split)
        save(result.model, path)
    if plan is not None:
        from leanconv.training import Distil, train

        with interruptible(f"{path} holds the network before fine-tuning."):
            train(result.model, split, plan, task=Distil(original), device=device)
            accuracy["finetuned"] = _accuracy(result.model, split)
            save(result.model, path)
    if as_json:
        print_json(
            {
                "model": getattr(original, "config", None),
                "weights": str(weights),
                "data": data,
                "accuracy": accuracy,
                "plan": result.plan.to_dict(),
                "record": result.record.to_dict(),
                "recipe": plan.to_dict() if plan else None,
                "output": str(path),
            }
        )
        return
    output().print(result.plan.table())
    shares = ", ".join(f"{name} {100 * value:.2f} %" for name, value in accuracy.items())
    output().print(f"Test accuracy: {shares}; written to {path}", markup=False, soft_wrap=True)


def calibration_batches(data: ImageData, images: int, seed: int) -> list[Tensor]:
    """Return random training images, normalised and not augmented.

    Args:
        data: The data set.
        images: How many.
        seed: Of the choice.
    """
    from leanconv.data import Augment, batches

    found: list[Any] = []
    count = min(images, len(data.train))
    source = batches(data.train, min(CALIBRATION_BATCH, count), train=True, augment=Augment(), seed=seed)
    for x, _ in source.epoch(0):
        found.append(x[: count - sum(map(len, found))])
        if sum(map(len, found)) == count:
            break
    return found


def _accuracy(model: nn.Module, data: ImageData) -> float:
    from leanconv.training import evaluate

    return evaluate(model, data, channels_last=True)["top1"]


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """Show how far planning and conversion are."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=messages(), transient=True) as bar:
        task = bar.add_task("Compressing", total=None)

        def report(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        yield report
