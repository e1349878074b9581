"""The claims of the paper on residual axial networks (arXiv 2301.04631), as measured here.

Its abstract claims fewer parameters and multiply-accumulates than residual, wide residual, MobileNet and
SqueezeNext networks, and an accuracy that is at least one per cent better.  The first part counts; the second trains
the five 26-layer networks alike on CIFAR-10, much narrower and shorter than the paper's, and compares their accuracies.

    python benchmarks/ran_claims.py                                  # counts, and whatever is trained already
    python benchmarks/ran_claims.py --train --epochs 6 --seeds 3     # train what is missing; may be repeated

Finished runs are kept in the output folder, an interrupted one goes on after its last epoch, and the result file
is written anew after every run.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from leanconv.comparison import Ledger, Run, run_settings, train_runs
from leanconv.comparison.difference import mean_difference
from leanconv.data import load
from leanconv.errors import UserError
from leanconv.measurement import count_macs, count_params
from leanconv.models import create_model, list_models
from leanconv.training import load_recipe
from results_file import write_results

DEPTHS = (26, 35, 50, 101, 152)
WIDENINGS = (2, 4, 6, 8, 10)
BASE_WIDTH = 120
# "Fewer by about", in per cent of parameters and of multiply-accumulates (abstract of version 2).
CLAIMED = {"resnet": (77, 75), "wide resnet": (86, 80), "mobilenet": (75, 67), "squeezenext": (34, 26)}
CLAIMED_POINTS = 1.0
# What lets five networks be trained several times on a CPU; everything else is the recipe of the paper.
CHANGES = ("precision=bf16", "channels_last=true", "warmup_epochs=1")
TRAINED = ("ran26", "axial26", "resnet26_cifar", "mobilenet26_cifar", "squeezenext26_cifar")


def count(name: str, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates for a 32x32 image and 10 classes."""
    with torch.device("meta"):
        model = create_model(name, base_width=width)
    return count_params(model), count_macs(model, (1, 3, 32, 32))


def reduction(ran: str, baseline: str, width: int) -> dict[str, Any]:
    """Return the counts of two networks and how many per cent fewer the first has."""
    (params, macs), (base_params, base_macs) = count(ran, width), count(baseline, width)
    return {
        "model": ran,
        "baseline": baseline,
        "width": width,
        "params": params,
        "macs": macs,
        "baseline_params": base_params,
        "baseline_macs": base_macs,
        "fewer_params_percent": round(100 * (1 - params / base_params), 2),
        "fewer_macs_percent": round(100 * (1 - macs / base_macs), 2),
    }


def count_claims() -> dict[str, Any]:
    """Return the reductions against every family, beside what the paper claims."""
    rows = {
        family: [reduction(f"ran{depth}", f"{family}{depth}_cifar", BASE_WIDTH) for depth in DEPTHS]
        for family in ("resnet", "mobilenet", "squeezenext")
        if list_models(f"{family}26_cifar")
    }
    rows["wide resnet"] = [reduction("ran26", "resnet26_cifar", BASE_WIDTH * k) for k in WIDENINGS]
    return {
        family: {
            "claimed_fewer_percent": dict(zip(("params", "macs"), CLAIMED[family], strict=True)),
            "mean_fewer_percent": {
                kind: round(fmean(row[f"fewer_{kind}_percent"] for row in found), 1) for kind in ("params", "macs")
            },
            "networks": found,
        }
        for family, found in rows.items()
    }


def accuracy_claims(runs: list[Run]) -> dict[str, Any]:
    """Return accuracies, and for every baseline whether "at least one per cent better" holds.

    The claim holds for these settings if the whole 95 % confidence interval of the difference lies above one
    percentage point, and is refuted if the whole interval lies below it.
    """
    accuracies = {name: [run.accuracy for run in runs if run.model == name] for name in TRAINED}
    accuracies = {name: found for name, found in accuracies.items() if found}
    models = {
        name: {
            "accuracy_percent": round(100 * fmean(found), 3),
            "sd_percent": round(100 * stdev(found), 3) if len(found) > 1 else None,
            "seeds": len(found),
        }
        for name, found in accuracies.items()
    }
    statements = []
    for name in accuracies.keys() - {"ran26"}:
        if "ran26" not in accuracies:
            break
        difference = mean_difference(accuracies["ran26"], accuracies[name])
        low, high = (None if end is None else round(100 * end, 3) for end in (difference.low, difference.high))
        statements.append(
            {
                "baseline": name,
                "difference_points": round(100 * difference.mean, 3),
                "low_points": low,
                "high_points": high,
                "statement": _statement(name, 100 * difference.mean, low, high),
            }
        )
    return {"models": models, "claim": sorted(statements, key=lambda entry: TRAINED.index(entry["baseline"]))}


def _statement(baseline: str, points: float, low: float | None, high: float | None) -> str:
    found = f"ran26 is {points:+.2f} percentage points from {baseline}"
    if low is None or high is None:
        return f"{found}; with fewer than two seeds on a side nothing can be said about a claim."
    found += f" (95 % interval {low:+.2f} to {high:+.2f})"
    if low >= CLAIMED_POINTS:
        return f"{found}: at least one point better holds here."
    if high < CLAIMED_POINTS:
        return f"{found}: at least one point better does not hold here."
    return f"{found}: too uncertain to say whether it is at least one point better."


def accuracy_report(folder: Path) -> dict[str, Any]:
    """Return what the finished runs in a folder say, with the runs themselves."""
    ledger = Ledger.existing(folder)
    runs = ledger.all_finished()
    return {**accuracy_claims(runs), "settings": ledger.settings, "runs": [asdict(run) for run in runs]}


def train_missing(options: argparse.Namespace, after_run: Callable[[], None]) -> None:
    """Train every run that is missing; call ``after_run`` after each."""
    if options.threads:
        torch.set_num_threads(options.threads)
    data = load("cifar10", folder=options.data)
    recipe = load_recipe(options.recipe, [*CHANGES, f"epochs={options.epochs}", *options.changes])
    ledger = Ledger(options.output, run_settings(data, recipe, options.width))

    def on_run(name: str, seed: int, run: Run | None) -> None:
        print(f"{name}, seed {seed}: " + ("training" if run is None else f"{100 * run.accuracy:.2f} %"), flush=True)
        if run is not None:
            after_run()

    train_runs(
        TRAINED, data, recipe, ledger, width=options.width, seeds=options.seeds, device=options.device, on_run=on_run
    )


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    local = os.environ.get("LEANCONV_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="train the runs that are missing")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(local) / "cifar10" if local else None,
        help="folder of CIFAR-10 in parquet (default: $LEANCONV_DATA/cifar10, else the hub)",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/ran_claims"), help="folder of the runs")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="ran_cifar")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, help="CPU threads of training")
    parser.add_argument("--device", help="where to train (default: the accelerator if there is one)")
    return parser.parse_args()


def main() -> None:
    """Count, train what is asked for, write the result file."""
    options = arguments()
    counts = count_claims()
    for family, found in counts.items():
        print(f"{family}: claimed {found['claimed_fewer_percent']}, counted {found['mean_fewer_percent']} % fewer")

    def write() -> None:
        begun = (options.output / "settings.json").exists()
        write_results(
            "ran_claims", {"counts": counts, **({"accuracy": accuracy_report(options.output)} if begun else {})}
        )

    write()
    if options.train:
        train_missing(options, write)
    if (options.output / "settings.json").exists():
        for entry in accuracy_report(options.output)["claim"]:
            print(entry["statement"])


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error}")
