"""``leanconv evaluate``: a network with given weights on the test images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanconv.cli.console import output, print_json
from leanconv.cli.normalisation import Mean, Normalisation, Std, renormalised
from leanconv.cli.options import DataFolder, DataIfNeeded, Device, Json, Scales, Width, between, needed
from leanconv.cli.superres import enlarges, evaluate_pictures, refuse_classifiers_options, refuse_scales
from leanconv.errors import UserError


def evaluate(
    model: Annotated[str, typer.Argument(help="Name of a network; leanconv list shows them. Or bicubic.")],
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Weights or a checkpoint, as .safetensors; bicubic, the baseline, has none."),
    ] = None,
    data: DataIfNeeded = None,
    width: Width = None,
    scales: Scales = None,
    split: Annotated[str, typer.Option(help="test or train.")] = "test",
    batch_size: Annotated[
        int,
        typer.Option(
            callback=between("--batch-size", 1, 1_000_000), help="Images in a batch; the result does not depend on it."
        ),
    ] = 256,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    mean: Mean = None,
    std: Std = None,
    normalisation: Normalisation = None,
    device: Device = None,
    folder: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Evaluate a network on every test image."""
    if enlarges(model):
        refuse_classifiers_options(model, width=width, mean=mean, std=std, normalisation=normalisation)
        evaluate_pictures(
            model,
            weights,
            data,
            scales=scales,
            split=split,
            precision=precision,
            device=device,
            folder=folder,
            as_json=as_json,
        )
        return
    refuse_scales(model, scales)
    if weights is None:
        raise UserError("--weights is missing: give the network's weights or a checkpoint, as .safetensors.")
    name = needed(data)
    from leanconv.comparison import build_model
    from leanconv.data import load
    from leanconv.training import evaluate as run
    from leanconv.training import load_weights

    images = renormalised(load(name, folder=folder), normalisation, mean, std)
    network = build_model(model, images, width)
    load_weights(network, weights)
    metrics = run(network, images, split=split, batch_size=batch_size, precision=precision, device=device)
    if as_json:
        print_json({"model": network.config, "weights": str(weights), "data": name, "split": split, **metrics})
        return
    accuracies = [f"{name} {100 * metrics[name]:.2f} %" for name in ("top1", "top5") if name in metrics]
    output().print(
        f"{model} on {metrics['images']:g} {split} images of {name}: {', '.join(accuracies)}, "
        f"loss {metrics['loss']:.4f}, {metrics['images_per_second']:.0f} images/s",
        markup=False,
        soft_wrap=True,
    )
