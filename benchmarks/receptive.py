"""What networks can see: the tables of the 3-D receptive field, the whole zoo and the static optimiser, tested.

Three parts, of which the first two take minutes and the last one hours on a CPU.  The portions of VGG16 and of blocks
stand beside those published (arXiv 2009.05236); every network of the zoo is analysed as published, with the time that
takes, and a small member of its family is checked against perturbed images; VGG16, MobileNet and ResNet are rewritten
by the optimiser and trained alike on CIFAR-10, before and after.

    python benchmarks/receptive.py                                # tables, zoo, costs, and whatever is trained already
    python benchmarks/receptive.py --train --epochs 8 --seeds 2   # train what is missing; may be repeated
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import nn

from leanconv.comparison import Ledger, run_settings
from leanconv.comparison.difference import mean_difference
from leanconv.data import load
from leanconv.errors import UserError
from leanconv.measurement import measure_latency
from leanconv.models import MODELS, create_model
from leanconv.ops import RollingPointwise2d
from leanconv.receptive import (
    AxisField,
    ReceptiveField,
    optimize,
    portion,
    probe,
    reach,
    receptive_field,
    saturating_kernels,
    stacked_portion,
)
from leanconv.training import load_recipe
from results_file import RESULTS, write_results
from single_run import trained_run

#: Portion after each 3x3 kernel of VGG16's stages for 32-pixel images, by the formula, and the saturating number.
VGG16 = {
    32: ([0.009, 0.024], 16),
    16: ([0.035, 0.098], 8),
    8: ([0.141, 0.391, 0.766], 4),
    4: ([0.562, 1.0, 1.0], 2),
    2: ([1.0, 1.0, 1.0], 1),
}
#: Portion of one and of two blocks on 64 channels of 16x16 samples, four groups, overlap one half.
BLOCKS = {
    "standard 3x3": (0.0352, 0.0977),
    "DW+PW": (0.0352, 0.0977),
    "DW alone": (0.0005, 0.0015),
    "PW alone": (0.0039, 0.0039),
    "DW+GPW": (0.0088, 0.0244),
    "DW+RPW": (0.0088, 0.0977),
}
LIMIT_S = 10.0
#: What the paper's abstract claims at most, in percentage points of accuracy and per cent of parameters.
CLAIMED = {"accuracy_points": 5.47, "fewer_params_percent": 65.38}
#: Small enough to be trained several times on a CPU.
NETWORKS: dict[str, dict[str, Any]] = {
    "vgg16": {"stem": "cifar", "base_width": 16},
    "mobilenet_v1_050": {"stem": "cifar"},
    "resnet20_cifar": {},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "moved": {},
    "removed": {"move": False},
    "removed, dw+pw": {"move": False, "kernel": "dw+pw"},
    "removed, dw+rpw": {"move": False, "kernel": "dw+rpw"},
}
CHANGES = ("precision=bf16", "channels_last=true", "warmup_epochs=1")


def block_components(name: str) -> list[nn.Module]:
    """Return the layers of a block of the table."""
    layers: dict[str, Callable[[], nn.Module]] = {
        "standard": lambda: nn.Conv2d(64, 64, 3, padding=1),
        "DW": lambda: nn.Conv2d(64, 64, 3, padding=1, groups=64),
        "PW": lambda: nn.Conv2d(64, 64, 1),
        "GPW": lambda: nn.Conv2d(64, 64, 1, groups=4),
        "RPW": lambda: RollingPointwise2d(64, 64, 4, 0.5),
    }
    return [layers[part]() for part in name.split()[0].split("+")]


def tables() -> dict[str, Any]:
    """Return both tables beside the published ones."""
    stages = receptive_field(create_model("vgg16", stem="cifar")).stages
    vgg16 = []
    for stage, (side, (published, saturated)) in zip(stages, VGG16.items(), strict=True):
        kernels = stage.kernels[len(stage.kernels) - len(published) :]
        found = [round(kernel.portion, 3) for kernel in kernels]
        formula = [round(stacked_portion(1 + index, (side, side)), 3) for index in range(len(published))]
        vgg16.append(
            {
                "resolution": side,
                "published": published,
                "formula": formula,
                "network": found,
                "published_saturated_by": saturated,
                "saturated_by": saturating_kernels((side, side)),
                "holds": published == formula == found and saturated == saturating_kernels((side, side)),
            }
        )
    blocks = []
    for name, published in BLOCKS.items():
        parts = block_components(name)
        found = tuple(round(portion(nn.Sequential(*parts * count), (1, 64, 16, 16)), 4) for count in (1, 2))
        blocks.append({"block": name, "published": published, "found": found, "holds": published == found})
    return {"vgg16": vgg16, "blocks": blocks}


def zoo() -> list[dict[str, Any]]:
    """Analyse every network as published, and check a small member of its family against perturbed images."""
    rows = []
    for name in MODELS:
        entry = MODELS[name]
        model = create_model(name)
        started, worked = time.perf_counter(), time.process_time()
        found = receptive_field(model)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
        stages = {"num_classes": 3, "features_only": True} if entry.purpose == "classify" else {}
        small = create_model(name, **{**entry.small, **stages})
        size = (1, entry.input_size[0], *(40, 32)[: len(entry.input_size) - 1])
        truth = zip(reach(small, size), probe(small, size), strict=True)
        rows.append(
            {
                "model": name,
                "input": [1, *entry.input_size],
                "layers": len(found.layers),
                "field": [axis.size for axis in last_window(found)],
                "stages": len(found.stages),
                "saturated_stages": sum(stage.saturated_by is not None for stage in found.stages),
                "unknown": list(found.unknown),
                "seconds": round(seconds, 2),
                # What other processes take from the machine is in the one and not in the other.
                "cpu_seconds": round(cpu_seconds, 2),
                "within_limit": cpu_seconds <= LIMIT_S,
                "exact": all(mine.equals(other) for mine, other in truth),
            }
        )
        print(
            f"{name}: {seconds:.1f} s ({cpu_seconds:.1f} s of CPU), {'exact' if rows[-1]['exact'] else 'NOT EXACT'}",
            flush=True,
        )
    return rows


def last_window(found: ReceptiveField) -> tuple[AxisField, ...]:
    """Return the axes of the last layer with a moving window, or of the last layer."""
    moving = [layer.axes for layer in found.layers if all(axis.jump is not None for axis in layer.axes)]
    return moving[-1] if moving else found.layers[-1].axes


def networks(classes: int = 10) -> dict[str, dict[str, Callable[[], nn.Module]]]:
    """Return for each network how to build it as it is and as each variant of the optimiser rewrites it."""
    found: dict[str, dict[str, Callable[[], nn.Module]]] = {}
    for name, options in NETWORKS.items():
        given = {**options, "num_classes": classes}
        found[name] = {"original": lambda name=name, given=given: create_model(name, **given)}
        for variant, settings in VARIANTS.items():
            try:
                optimize(name, (1, 3, 32, 32), **settings, **given)
            except UserError:
                # MobileNet's convolutions are depthwise and pointwise already.
                continue
            found[name][variant] = lambda name=name, given=given, settings=settings: (
                optimize(name, (1, 3, 32, 32), **settings, **given).model
            )
    return found


def costs() -> dict[str, Any]:
    """Return what each network costs before and after; times are of one image on one thread."""
    report = {}
    for name, builds in networks().items():
        models = {variant: build().eval() for variant, build in builds.items()}
        timed = measure_latency(models, torch.randn(1, 3, 32, 32), threads=1)
        params = {variant: sum(p.numel() for p in model.parameters()) for variant, model in models.items()}
        rows = {}
        for variant in models:
            settings = VARIANTS.get(variant)
            record = {} if settings is None else optimize(name, (1, 3, 32, 32), **settings, **NETWORKS[name]).to_dict()
            rows[variant] = {
                "params": params[variant],
                "fewer_params_percent": round(100 * (1 - params[variant] / params["original"]), 2),
                "latency_s": timed[variant].median_s,
                "units": [stage["after"] for stage in record.get("stages", [])],
                "macs": record["after"]["macs"] if record else None,
            }
            rows["original"]["macs"] = record["before"]["macs"] if record else rows["original"]["macs"]
        report[name] = rows
    return report


def accuracies(folder: Path) -> dict[str, Any]:
    """Return what the finished runs say, against the original network and the paper's claim."""
    ledger = Ledger.existing(folder)
    runs = ledger.all_finished()
    found: dict[str, Any] = {}
    for name in NETWORKS:
        by_variant = {
            variant: [run.accuracy for run in runs if run.model == run_name(name, variant)]
            for variant in ("original", *VARIANTS)
        }
        original = by_variant["original"]
        for variant, values in by_variant.items():
            if not values:
                continue
            row: dict[str, Any] = {
                "accuracy_percent": round(100 * fmean(values), 2),
                "sd_percent": round(100 * stdev(values), 2) if len(values) > 1 else None,
                "seeds": len(values),
            }
            if variant != "original" and original:
                difference = mean_difference(values, original)
                row["difference_points"] = round(100 * difference.mean, 2)
                row["low_points"], row["high_points"] = (
                    None if end is None else round(100 * end, 2) for end in (difference.low, difference.high)
                )
            found.setdefault(name, {})[variant] = row
    return {"networks": found, "settings": ledger.settings, "runs": [asdict(run) for run in runs]}


def run_name(name: str, variant: str) -> str:
    """Return the name under which a run is kept."""
    return f"{name}-{variant.replace(', ', '-').replace('+', '-')}"


def train_missing(options: argparse.Namespace, after_run: Callable[[], None]) -> None:
    """Train every run that is missing, all networks of a seed before the next seed."""
    if options.threads:
        torch.set_num_threads(options.threads)
    data = load("cifar10", folder=options.data)
    recipe = load_recipe(options.recipe, [*CHANGES, f"epochs={options.epochs}", *options.changes])
    shared = {**run_settings(data, recipe, None), "networks": NETWORKS, "variants": VARIANTS}
    ledger = Ledger(options.output, shared)
    builds = networks(data.num_classes)
    for seed in range(recipe.seed, recipe.seed + options.seeds):
        for name, variants in builds.items():
            for variant, build in variants.items():
                if ledger.finished(run_name(name, variant), seed) is None:
                    _, run = trained_run(run_name(name, variant), build, data, recipe, seed, ledger, options.device)
                    print(f"{name}, {variant}, seed {seed}: {100 * run.accuracy:.2f} %", flush=True)
                    after_run()


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    local = os.environ.get("LEANCONV_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="train the runs that are missing")
    parser.add_argument("--skip-zoo", action="store_true", help="keep the zoo's rows of the last result file")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(local) / "cifar10" if local else None,
        help="folder of CIFAR-10 in parquet (default: $LEANCONV_DATA/cifar10, else the hub)",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/receptive"), help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--recipe", default="ran_cifar")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, help="CPU threads of training")
    parser.add_argument("--device", help="where to train (default: the accelerator if there is one)")
    return parser.parse_args()


def main() -> None:
    """Make the tables, analyse the zoo, count, train what is asked for, write the result file."""
    options = arguments()
    parts: dict[str, Any] = {"claimed": CLAIMED, "tables": tables(), "costs": costs()}
    for row in (*parts["tables"]["vgg16"], *parts["tables"]["blocks"]):
        print(row)
    parts["zoo"] = previous_zoo() if options.skip_zoo else zoo()

    def write() -> None:
        if (options.output / "settings.json").exists():
            parts["accuracy"] = accuracies(options.output)
        print(f"Written to {write_results('receptive', parts)}")

    write()
    if options.train:
        train_missing(options, write)


def previous_zoo() -> list[dict[str, Any]]:
    """Return the zoo's rows of the last result file."""
    path = RESULTS / "receptive.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["zoo"] if path.exists() else []
    return rows


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error}")
