"""``leanconv evaluate``: a network with given weights on the test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanconv.cli.console import output, print_json
from leanconv.cli.options import Data, DataFolder, Device, Json, Width, between, numbers
from leanconv.errors import UserError, nearest

if TYPE_CHECKING:
    from leanconv.data import ImageData


def evaluate(
    model: Annotated[str, typer.Argument(help="Name of a network; leanconv list shows them.")],
    weights: Annotated[Path, typer.Option("--weights", help="Weights or a checkpoint, as .safetensors.")],
    data: Data,
    width: Width = None,
    split: Annotated[str, typer.Option(help="test or train.")] = "test",
    batch_size: Annotated[
        int,
        typer.Option(
            callback=between("--batch-size", 1, 1_000_000), help="Images in a batch; the result does not depend on it."
        ),
    ] = 256,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    mean: Annotated[str | None, typer.Option(help="Mean of every channel, such as 0.5,0.5,0.5.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of every channel.")] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(
            "--normalisation",
            "--normalization",
            help="imagenet, half (to -1 … 1), none (0 … 1), or the name of a data set.  "
            "[dim]\\[default: the data's own][/dim]",
        ),
    ] = None,
    device: Device = None,
    folder: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Evaluate a network on every test image."""
    from leanconv.comparison import build_model
    from leanconv.data import load
    from leanconv.training import evaluate as run
    from leanconv.training import load_weights

    images = load(data, folder=folder)
    constants = _constants(normalisation, mean, std, images)
    if constants:
        images = images.with_normalisation(*constants)
    network = build_model(model, images, width)
    load_weights(network, weights)
    metrics = run(network, images, split=split, batch_size=batch_size, precision=precision, device=device)
    if as_json:
        print_json({"model": network.config, "weights": str(weights), "data": data, "split": split, **metrics})
        return
    accuracies = [f"{name} {100 * metrics[name]:.2f} %" for name in ("top1", "top5") if name in metrics]
    output().print(
        f"{model} on {metrics['images']:g} {split} images of {data}: {', '.join(accuracies)}, "
        f"loss {metrics['loss']:.4f}, {metrics['images_per_second']:.0f} images/s",
        markup=False,
        soft_wrap=True,
    )


def _constants(
    normalisation: str | None, mean: str | None, std: str | None, data: ImageData
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation if the command line names them.

    Raises:
        UserError: They are named twice or half, or the name is unknown.
    """
    if (mean is None) != (std is None):
        raise UserError("--mean and --std go together: give both or neither.")
    if mean is not None and std is not None:
        if normalisation is not None:
            raise UserError(f"--normalisation {normalisation!r} and --mean say the same thing: give one of them.")
        return numbers("--mean", mean, float), numbers("--std", std, float)
    if normalisation is None:
        return None

    from leanconv.data import IMAGENET_MEAN, IMAGENET_STD
    from leanconv.data.known import DATA_SETS

    named = {name: (DATA_SETS[name].mean, DATA_SETS[name].std) for name in DATA_SETS}
    named["imagenet"] = (IMAGENET_MEAN, IMAGENET_STD)
    named["half"] = ((0.5,) * data.channels, (0.5,) * data.channels)
    named["none"] = ((0.0,) * data.channels, (1.0,) * data.channels)
    if normalisation not in named:
        raise UserError(f"Unknown normalisation {normalisation!r}: {nearest(normalisation, named)}")
    return named[normalisation]
