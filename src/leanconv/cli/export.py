"""``leanconv export``: a network into a file that another runtime runs, verified there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanconv.cli.console import interruptible, messages, output, print_json
from leanconv.cli.normalisation import Mean, Normalisation, Std, renormalised
from leanconv.cli.options import DataFolder, Json, NetworkOptions, Threads, Width, between, network_options
from leanconv.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from leanconv.data import ImageData
    from leanconv.deployment import ExportReport

#: Layers of a finding that are named.
_SHOWN = 3


def export(
    model: Annotated[
        str, typer.Argument(help="Name of a network; leanconv list shows them. Or a file of leanconv compress.")
    ],
    target: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File to write: .onnx, .xml (OpenVINO), .pt2, .aoti.pt2 or .pte (ExecuTorch)."
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Its weights or a checkpoint, as .safetensors.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data set for real inputs, calibration and accuracy, such as cifar10 or a folder."),
    ] = None,
    images: Annotated[
        int, typer.Option(callback=between("--images", 1, 1_000_000), help="Images to calibrate on, and to test on.")
    ] = 1000,
    int8: Annotated[bool, typer.Option("--int8", help="Compute in 8-bit integers; needs --data.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare and time the export in its runtime.")
    ] = True,
    folded: Annotated[bool, typer.Option("--fold/--no-fold", help="Merge layers first where it is faster.")] = True,
    batch_size: Annotated[
        int, typer.Option(callback=between("--batch-size", 1, 100_000), help="Batch to time; files take any.")
    ] = 1,
    width: Width = None,
    settings: NetworkOptions = None,
    seed: Annotated[int, typer.Option(callback=between("--seed", 0, 2**31 - 1), help="Of the images chosen.")] = 0,
    mean: Mean = None,
    std: Std = None,
    normalisation: Normalisation = None,
    threads: Threads = None,
    folder: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Export a network, and prove that its runtime computes the same."""
    from leanconv.deployment import export as run
    from leanconv.deployment import fold
    from leanconv.deployment.costs import target_of
    from leanconv.deployment.engines import engine_for
    from leanconv.deployment.program import with_rows
    from leanconv.measurement.inputs import example_inputs

    engine = engine_for(target)
    engine.require()
    if not target.absolute().parent.is_dir():
        raise UserError(f"-o {str(target)!r} must be in a folder that exists.")
    if int8 and data is None:
        raise UserError("--int8 needs inputs to calibrate on: give --data too.")
    split = None if data is None else renormalised(_loaded(data, folder), normalisation, mean, std)
    network = _network(model, split, weights, network_options(settings, base_width=width))
    calibration, labelled = (None, None) if split is None else _images(split, images, seed)
    (drawn,) = example_inputs(network) if calibration is None else (calibration[0],)
    with interruptible(f"{target} was not written."):
        if not as_json:
            messages().print(f"Exporting {model} to {target} …", markup=False, soft_wrap=True)
        # Files are for images of one size, so that pooling may be folded where it has nothing to round.
        lean = (
            fold(network.eval(), input_size=tuple(drawn.shape), target=target_of(engine.name))
            if folded
            else network.eval()
        )
        report = run(
            lean,
            target,
            with_rows(drawn, batch_size),
            verify=verify,
            int8=calibration if int8 else None,
            accuracy=labelled,
            threads=threads,
        )
    if as_json:
        print_json(
            {"model": getattr(network, "config", model), "weights": weights and str(weights), "data": data}
            | {"folded": folded, "report": report.to_dict()}
        )
        return
    _show(report)


def _loaded(data: str, folder: Path | None) -> ImageData:
    from leanconv.data import load

    return load(data, folder=folder)


def _network(model: str, data: ImageData | None, weights: Path | None, options: dict[str, Any]) -> nn.Module:
    """Return the network in a file of ``leanconv compress``, or the named one with its weights."""
    from leanconv.models import create_model

    if model.endswith(".safetensors"):
        from leanconv.deployment import load

        if weights is not None or options:
            raise UserError(f"{model!r} holds a network with its weights: --weights, --width and --set do not apply.")
        return load(model)
    if data is not None:
        options = {
            "num_classes": data.num_classes,
            "in_channels": data.channels,
            "image_size": data.image_size,
        } | options
    network = create_model(model, **options)
    if weights is not None:
        from leanconv.training import load_weights

        load_weights(network, weights)
    return network


def _images(data: ImageData, images: int, seed: int) -> tuple[list[Any], list[Any]]:
    """Return training images to calibrate on, and labelled test images."""
    from leanconv.cli.compress import CALIBRATION_BATCH, calibration_batches
    from leanconv.data import batches

    labelled: list[Any] = []
    left = images
    for x, y in batches(data.test, CALIBRATION_BATCH, train=False).epoch(0):
        labelled.append((x[:left], y[:left]))
        left -= len(labelled[-1][1])
        if left == 0:
            break
    return calibration_batches(data, images, seed), labelled


def _show(report: ExportReport) -> None:
    """Print what an export does, in a few lines."""
    lines = [f"{report.path}: {report.bytes / 1e6:.2f} MB, {report.dtype}, for {report.engine}"]
    if report.parity:
        worst = max(report.parity, key=lambda case: case.relative)
        sizes = ", ".join(str(batch) for batch in sorted({case.batch for case in report.parity}))
        lines.append(
            f"Verified at batch {sizes}: outputs differ by at most {worst.relative:.1e} of the largest "
            f"(tolerance {worst.tolerance:g})"
        )
    for name, latency in report.latency.items():
        lines.append(f"{name}: {1e3 * latency.median_s:.3f} ms for a batch of {latency.batch}")
    if report.speedup is not None:
        lines.append(f"{report.speedup.median:.2f} times as fast as eager PyTorch, {_threads(report)}")
    if report.int8_speedup is not None:
        lines.append(f"{report.int8_speedup.median:.2f} times as fast as the same export in floating point")
    if report.accuracy is not None:
        shares = ", ".join(f"{name} {100 * value:.2f} %" for name, value in report.accuracy.items())
        lines.append(f"Top-1: {shares}")
    for finding in report.findings:
        layers = ", ".join(finding.layers[:3]) + (
            f" and {len(finding.layers) - 3} more" if len(finding.layers) > 3 else ""
        )
        lines.append(f"{finding.rule} in {layers or 'the network'}: {finding.problem}.")
        lines.append(f"  {finding.fix[0].upper()}{finding.fix[1:]} ({', '.join(finding.threads)}).")
    for line in lines:
        output().print(line, markup=False, soft_wrap=True)


def _threads(report: ExportReport) -> str:
    count = report.environment["threads"]
    return "on one thread" if count == 1 else f"on {count} threads"
