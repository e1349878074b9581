"""``leanconv train``: train a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanconv.cli.console import interruptible, is_first_process, output, print_json
from leanconv.cli.options import (
    DataFolder,
    DataIfNeeded,
    Device,
    Epochs,
    Json,
    Overrides,
    RecipeFile,
    Scales,
    Width,
    between,
    default_recipe,
    needed,
    overrides,
)
from leanconv.cli.superres import RECIPE, enlarges, refuse_classifiers_options, refuse_scales, train_pictures
from leanconv.errors import UserError


def train(
    model: Annotated[str, typer.Argument(help="Name of a network; leanconv list shows them.")],
    data: DataIfNeeded = None,
    epochs: Epochs = None,
    recipe: RecipeFile = None,
    changes: Overrides = None,
    width: Width = None,
    scales: Scales = None,
    output_folder: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of checkpoints and logs.  [dim]\\[default: runs/<model>-<data>][/dim]"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last finished epoch.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is in the folder.")] = False,
    batch_size: Annotated[
        int | None, typer.Option(callback=between("--batch-size", 1, 1_000_000), help="Short for --set batch_size=N.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Short for --set lr=X.")] = None,
    seed: Annotated[
        int | None, typer.Option(callback=between("--seed", 0, 2**31 - 1), help="Short for --set seed=N.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    compiled: Annotated[bool | None, typer.Option("--compile/--no-compile", help="Use torch.compile.")] = None,
    device: Device = None,
    folder: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Train a network; torchrun -m leanconv train … trains on several processes."""
    superres = enlarges(model)
    name = data or "photos" if superres else needed(data)
    target = output_folder or Path("runs") / f"{model}-{Path(name).name}"

    import torch

    from leanconv.comparison import build_model
    from leanconv.data import load
    from leanconv.training import load_recipe
    from leanconv.training import train as run
    from leanconv.training.checkpoint import LAST

    changed = overrides(
        changes,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        precision=precision,
        compile=compiled,
    )
    plan = load_recipe(recipe or (RECIPE if superres else default_recipe(name)), changed, epochs=epochs)
    if (target / LAST).exists() and not (resume or overwrite):
        raise UserError(
            f"Folder {str(target)!r} already holds a run: continue it with --resume, replace it with --overwrite, or "
            "name another one with -o."
        )
    if superres:
        refuse_classifiers_options(model, width=width)
        train_pictures(
            model,
            data,
            plan,
            target,
            scales=scales,
            resume=resume,
            overwrite=overwrite,
            device=device,
            folder=folder,
            as_json=as_json,
        )
        return
    refuse_scales(model, scales)
    images = load(name, folder=folder)
    torch.manual_seed(plan.seed)
    network = build_model(model, images, width)
    with interruptible(f"the same command with --resume goes on after the last epoch kept in {target}."):
        result = run(network, images, plan, target, resume=resume, overwrite=overwrite, device=device)
    if not is_first_process():
        return
    record = {
        "model": network.config,
        "data": name,
        "recipe": plan.to_dict(),
        "last": result.last,
        "best": result.best,
        "output": str(target),
        "weights": str(target / LAST),
    }
    if as_json:
        print_json(record)
        return
    last, best = result.last, result.best
    output().print(
        f"Test accuracy {100 * last['test_top1']:.2f} % after epoch {last['epoch']} "
        f"(best {100 * best['test_top1']:.2f} % after epoch {best['epoch']}); weights in {record['weights']}",
        markup=False,
        soft_wrap=True,
    )
