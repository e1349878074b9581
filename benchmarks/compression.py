"""How much accuracy trained networks keep when they are compressed, with and without fine-tuning.

Trained CIFAR ResNets are compressed to budgets of multiply-accumulates and evaluated on all test images; the same
budgets are given to other libraries.  Further: relative errors on synthetic layers, time and memory of planning and
converting, and the latency that was planned against the one that was measured.

    LEANCONV_DATA=… python benchmarks/compression.py               # hours; writes results/compression_<part>.json
    LEANCONV_DATA=… python benchmarks/compression.py --only peers  # one part
    LEANCONV_DATA=… python benchmarks/compression.py --quick       # minutes; few images, nothing is written
"""

import os
import resource
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from compression_peers import pruned, tensorly
from leanconv.cli.compress import calibration_batches
from leanconv.compression import Compression, compress
from leanconv.compression.depthwise import compose_depthwise, depthwise_from_moments, refit_filters, refit_mix
from leanconv.compression.separable_methods import ROUNDS
from leanconv.data import IMAGENET_MEAN, IMAGENET_STD, ImageData, load
from leanconv.errors import UserError
from leanconv.measurement import count_macs, measure_latency, paired_ratio
from leanconv.models import create_model
from leanconv.training import Distil, evaluate, load_recipe, load_weights, train
from results_file import write_results

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "compression"))
from synthetic import correlated_layer, moments, relative_error

#: Accuracy in percent to reach without fine-tuning: network, budget, bar.
BARS = (
    ("resnet20_cifar", 0.7, 91.5),
    ("resnet20_cifar", 0.5, 90.5),
    ("resnet20_cifar", 0.35, 88.0),
    ("resnet44_cifar", 0.5, 92.0),
)
#: The same after at most five epochs of it.
FINETUNED_BARS = (("resnet20_cifar", 0.5, 91.5), ("resnet44_cifar", 0.5, 92.9))
RUNS = Path("runs/compression")
PARTS = ("cost", "accuracy", "peers", "synthetic", "latency", "finetuned")
#: Relative errors to stay at or below for multipliers 1, 2 and 3: correlated data, then rectified.
SYNTHETIC = {
    (16, False): (0.537, 0.346, 0.221),
    (64, False): (0.612, 0.436, 0.321),
    (16, True): (0.608, 0.440, 0.333),
    (64, True): (0.570, 0.440, 0.360),
}
SAMPLES = 3528


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Few images; write nothing.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"Parts to run, of {', '.join(PARTS)}.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    images: Annotated[int, typer.Option(min=1, help="Calibration images.")] = 1000,
    positions: Annotated[int, typer.Option(min=1, help="Positions of each feature map.")] = 64,
    output: Annotated[Path, typer.Option(help="Where fine-tuning keeps its epochs, to go on there.")] = RUNS,
) -> None:
    """Run the parts and write what they found."""
    torch.set_num_threads(threads)
    parts = {
        "cost": lambda: cost(quick),
        "accuracy": lambda: [accuracy(*bar, images, positions, quick) for bar in (BARS[1:2] if quick else BARS)],
        "peers": lambda: peers(images, positions, quick),
        "synthetic": synthetic,
        "latency": lambda: latency(quick),
        "finetuned": lambda: [] if quick else [finetuned(*bar, images, positions, output) for bar in FINETUNED_BARS],
    }
    settings = {"threads": threads, "images": images, "positions": positions}
    # Time and memory come first: the peak of a process does not fall again.
    for name, part in parts.items():
        if not only or name in only:
            found = part()
            Console().print_json(data={name: found})
            if not quick:
                Console().print(f"Written to {write_results(f'compression_{name}', {**settings, name: found})}")


def data() -> ImageData:
    """CIFAR-10, normalised as the weights want it."""
    return load("cifar10", folder=_folder() / "cifar10").with_normalisation(IMAGENET_MEAN, IMAGENET_STD)


def trained(name: str) -> nn.Module:
    """Return a network with its trained weights."""
    model = create_model(name)
    return load_weights(model, _folder() / "weights" / f"{name.split('_')[0]}_cifar10.safetensors").eval()


def _folder() -> Path:
    folder = os.environ.get("LEANCONV_DATA")
    if not folder:
        raise SystemExit("LEANCONV_DATA must name the folder with cifar10/ and weights/.")
    return Path(folder)


def top1(model: nn.Module, images: ImageData) -> float:
    """Return the accuracy on all test images, in percent."""
    return 100 * evaluate(model, images, channels_last=True)["top1"]


def accuracy(name: str, budget: float, bar: float, images: int, positions: int, quick: bool) -> dict[str, Any]:
    """Compress a network without fine-tuning it."""
    split, model = data(), trained(name)
    count, places = (100, 10) if quick else (images, positions)
    result = compress(model, calibration_batches(split, count, 0), macs=budget, images=count, positions=places)
    row = {"network": name, "budget": budget, "macs": macs_ratio(result.model, model), "original": top1(model, split)}
    return row | {"compressed": top1(result.model, split), "bar": bar, "plan": result.plan.to_dict()}


def finetuned(name: str, budget: float, bar: float, images: int, positions: int, output: Path) -> dict[str, Any]:
    """Compress a network and fine-tune it, distilled from the original."""
    split, model, recipe = data(), trained(name), load_recipe("finetune", ["precision=bf16"])
    lean = compress(model, calibration_batches(split, images, 0), macs=budget, images=images, positions=positions).model
    result = train(lean, split, recipe, output / f"{name}-{budget}", task=Distil(model), resume=True)
    row = {"network": name, "budget": budget, "macs": macs_ratio(lean, model), "recipe": recipe.to_dict()}
    return row | {"finetuned": top1(result.model, split), "bar": bar, "history": result.history}


def macs_ratio(lean: nn.Module, model: nn.Module) -> float:
    """Return multiply-accumulates as a fraction of the original's."""
    return count_macs(lean, (1, 3, 32, 32)) / count_macs(model, (1, 3, 32, 32))


def peers(images: int, positions: int, quick: bool) -> list[dict[str, Any]]:
    """Compress one network to all budgets with this and with other libraries."""
    split, model, rows = data(), trained("resnet20_cifar"), []
    calibration = calibration_batches(split, 100 if quick else images, 0)
    for budget in (0.5,) if quick else (0.7, 0.5, 0.35):
        networks: dict[str, nn.Module | None] = {
            "leanconv": compress(
                model, calibration, macs=budget, images=images, positions=10 if quick else positions
            ).model,
            "tensorly-torch Tucker": tensorly(model, budget, "tucker"),
            "tensorly-torch CP": None if quick else tensorly(model, budget, "cp"),
            "Torch-Pruning magnitude": pruned(model, budget),
        }
        rows += [
            {"library": name, "budget": budget, "macs": macs_ratio(lean, model), "top1": top1(lean, split)}
            for name, lean in networks.items()
            if lean is not None
        ]
    return rows


def synthetic() -> list[dict[str, Any]]:
    """Depth-wise decomposition on synthetic layers: held-out relative errors.

    The data behind the bars is not known beyond "correlated in space and between channels", so these are errors on
    data of that kind, not on the same.
    """
    rows = []
    for (channels, rectified), bars in SYNTHETIC.items():
        weight, x, y = correlated_layer(channels=channels, samples=2 * SAMPLES, outputs=channels, rectified=rectified)
        gram, cross, _ = moments(x[:SAMPLES], y[:SAMPLES])
        for multiplier, bar in enumerate(bars, start=1):
            filters, mix = depthwise_from_moments(gram, cross, weight, multiplier)
            once = compose_depthwise(filters, refit_mix(gram, cross, filters))
            filters, mix = depthwise_from_moments(gram, cross, weight, multiplier, sweeps=3)
            for _ in range(ROUNDS):
                mix = refit_mix(gram, cross, filters)
                filters = refit_filters(gram, cross, filters, mix)
            best = compose_depthwise(filters, refit_mix(gram, cross, filters))
            rows.append(
                {
                    "channels": channels,
                    "rectified": rectified,
                    "multiplier": multiplier,
                    "one_sweep_and_refit": relative_error(x[SAMPLES:], y[SAMPLES:], once),
                    "error": relative_error(x[SAMPLES:], y[SAMPLES:], best),
                    "bar": bar,
                }
            )
    return rows


def cost(quick: bool) -> dict[str, float]:
    """Time and peak memory of planning and converting a whole network."""
    count = 100 if quick else 500
    model, calibration = trained("resnet20_cifar"), calibration_batches(data(), count, 0)
    before = _peak_bytes()
    started = time.perf_counter()
    compress(model, calibration, macs=0.5, images=count)
    seconds = time.perf_counter() - started
    return {"images": count, "seconds": seconds, "bar_s": 60.0, "peak_bytes": _peak_bytes(), "before_bytes": before}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def latency(quick: bool) -> list[dict[str, Any]]:
    """Plan for latency, then measure original and result side by side.

    A wider network joins the trained one: the layers of the latter are so small that some devices gain nothing.
    """
    count = 20 if quick else 500
    calibration = calibration_batches(data(), count, 0)
    networks = {"resnet20_cifar, base_width 32": create_model("resnet20_cifar", base_width=32).eval()}
    if not quick:
        networks["resnet20_cifar"] = trained("resnet20_cifar")
    rows: list[dict[str, Any]] = []
    for name, model in networks.items():
        for budget in (0.7,) if quick else (0.8, 0.6):
            row: dict[str, Any] = {"network": name, "budget": budget}
            try:
                result: Compression = compress(model, calibration, latency=budget, batch=4)
            except UserError as error:
                rows.append({**row, "refused": str(error)})
                continue
            example: Tensor = torch.randn(4, 3, 32, 32)
            times = measure_latency({"lean": result.model, "original": model}, example, rounds=5 if quick else 30)
            planned = result.plan.after / result.plan.before
            measured = paired_ratio(times["lean"], times["original"]).median
            rows.append({**row, "planned": planned, "measured": measured, "off": measured / planned - 1})
    return rows


if __name__ == "__main__":
    typer.run(main)
