"""Super-resolution: does a residual axial unit improve DRRN with 94 % fewer parameters, and what does time buy?

Trains ``drrn_b1u9`` and ``ran_drrn_b1u9`` alike (same data, order, steps, rates, seed; schedules far shorter than the
published one), and ``lean_sr``, which enlarges at the end, once for each scale; compares them, the bicubic baseline
and VDSR with given weights on Set5, Set14 and BSD100 at x2, x3 and x4, and times what makes 1280x720 pixels of the
small image.

    python benchmarks/superres.py                          # times, and whatever is trained and evaluated already
    python benchmarks/superres.py --train --only drrn_b1u9 # trains and evaluates what is missing; may be repeated

Finished networks are kept in the output folder, an interrupted training goes on after its last epoch, an interrupted
evaluation after its last test set, and the result file is written anew after each.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leanconv.comparison import Ledger
from leanconv.comparison.ledger import write_json
from leanconv.data import load_pictures
from leanconv.deployment import fold
from leanconv.errors import UserError
from leanconv.measurement import count_macs, count_params, measure_latency, paired_ratio
from leanconv.models import create_model
from leanconv.models.superres import BICUBIC, SCALES
from leanconv.training import Recipe, SuperResolve, enlarging_network, evaluate, load_recipe, train
from leanconv.training.checkpoint import LAST
from leanconv.training.superres import enlarge
from results_file import write_results

SETS = ("set5", "set14", "bsd100")
OUTPUT = (720, 1280)
TIMED_SCALE = 2
GAIN_BAR, BEHIND_BAR, TIMES_BAR = 1.5, 0.3, 20.0
SEED = 0
# Alike for both: patches of the paper, an optimizer that needs no fifty epochs, 250 steps an epoch.
ALIKE = ("batch_size=16", "superres.patch_size=31", "superres.patch_stride=21", "superres.patches=4000")
QUICK = ("epochs=1", "warmup_epochs=0", "superres.patches=32")


@dataclass(frozen=True)
class Trained:
    """A network of the benchmark.

    Attributes:
        model: Its name in the zoo.
        epochs: Length of its schedule.
        changes: Of the recipe.
        options: Arguments of the network.
    """

    model: str
    epochs: int
    changes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def recipe(self, quick: bool) -> Recipe:
        """Return how it is trained; only the last epoch is evaluated, and on all sets after it."""
        settings = ("precision=bf16", "clip=1", f"evaluate_every={self.epochs}", f"seed={SEED}", *self.changes)
        return load_recipe("superres", [*settings, *(QUICK if quick else ())], epochs=self.epochs)


NETWORKS = {
    "drrn_b1u9": Trained("drrn_b1u9", 24, ALIKE),
    "ran_drrn_b1u9": Trained("ran_drrn_b1u9", 24, ALIKE),
    **{
        f"lean_sr_x{scale}": Trained("lean_sr", epochs, (f"superres.patch_size={side}",), {"scale": scale})
        for scale, epochs, side in ((2, 16, 64), (3, 5, 72), (4, 5, 72))
    },
}


def settings(quick: bool) -> dict[str, Any]:
    """Return what all runs in a folder share."""
    networks = {
        name: {"model": network.model, "options": network.options, "recipe": network.recipe(quick).to_dict()}
        for name, network in NETWORKS.items()
    }
    return {"data": "train291", "networks": networks, "quick": quick}


def train_one(name: str, ledger: Ledger, data: Path, device: str | None, quick: bool) -> None:
    """Train a network, or go on where it was cut, and note what it took."""
    network = NETWORKS[name]
    torch.manual_seed(SEED)
    model = create_model(network.model, **network.options)
    folder = ledger.run_folder(name, SEED)
    pictures = load_pictures("train291", folder=data)
    result = train(model, pictures, network.recipe(quick), folder, resume=True, device=device)
    speeds = [row["patches_per_second"] for row in result.history]
    training = {
        "epochs": len(result.history),
        "steps": result.last["step"],
        "minutes": round(sum(row["seconds"] for row in result.history) / 60, 2),
        "patches_per_second": round(sum(speeds) / len(speeds), 1),
        "threads": torch.get_num_threads(),
        "last_train_loss": result.last["train_loss"],
    }
    note(ledger, name, {"training": training})


def note(ledger: Ledger, name: str, found: dict[str, Any]) -> None:
    """Add to what is known of a network."""
    write_json(known_file(ledger, name), known(ledger, name) | found)


def known(ledger: Ledger, name: str) -> dict[str, Any]:
    """Return what was found of a network so far."""
    path = known_file(ledger, name)
    return dict(json.loads(path.read_text())) if path.exists() else {}


def known_file(ledger: Ledger, name: str) -> Path:
    """Return where it is kept."""
    return ledger.run_folder(name, SEED) / "superres.json"


def evaluate_missing(name: str, ledger: Ledger, data: Path, vdsr: Path, quick: bool) -> None:
    """Evaluate a network on the test sets that it was not evaluated on."""
    network = load_trained(name, ledger, vdsr)
    scales = SCALES if name == BICUBIC else None
    for test in SETS[:1] if quick else SETS:
        metrics = known(ledger, name).get("metrics", {})
        if test in metrics:
            continue
        print(f"{name}: {test}", flush=True)
        found = evaluate(
            network, load_pictures(test, folder=data), task=SuperResolve(scales=scales, ssim=True), channels_last=True
        )
        kept = {key: round(value, 4) for key, value in found.items() if "_x" in key}
        note(ledger, name, {"metrics": metrics | {test: kept}})


def load_trained(name: str, ledger: Ledger, vdsr: Path) -> nn.Module:
    """Return a network with its weights."""
    if name == BICUBIC:
        return enlarging_network(BICUBIC)
    if name == "vdsr":
        return enlarging_network("vdsr", vdsr)
    return enlarging_network(NETWORKS[name].model, ledger.run_folder(name, SEED) / LAST)


def enlarger(network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what is timed: all that makes the large plane of the small one."""
    return lambda small: enlarge(network, small, TIMED_SCALE)


def costs(rounds: int, threads: int | None, output: tuple[int, int]) -> dict[str, Any]:
    """Return parameters, multiply-accumulates and seconds of enlarging a luma plane twice, to 1280x720.

    Weights do not matter here.  Enlarging by bicubic interpolation counts where a network needs it; channels are
    innermost in memory, and networks are folded where that is exact and pays.
    """
    small = torch.rand(1, 1, output[0] // TIMED_SCALE, output[1] // TIMED_SCALE)
    models = {
        "drrn_b1u9": create_model("drrn_b1u9"),
        "ran_drrn_b1u9": create_model("ran_drrn_b1u9"),
        "vdsr": create_model("vdsr"),
        "lean_sr_x2": create_model("lean_sr"),
    }
    calls, counts = {}, {}
    for name, model in models.items():
        size = small.shape if model.upsamples else (1, 1, *output)
        counts[name] = {"params": count_params(model), "macs": count_macs(model, size)}
        calls[name] = enlarger(fold(model.eval()).to(memory_format=torch.channels_last))
    timed = measure_latency(calls, small, rounds=rounds, warmup=1, threads=threads)
    for name, latency in timed.items():
        counts[name] |= {"median_s": latency.median_s, "q25_s": latency.q25_s, "q75_s": latency.q75_s}
        counts[name]["vdsr_takes_times_as_long"] = round(paired_ratio(timed["vdsr"], latency).median, 3)
    return {
        "output": list(output),
        "scale": TIMED_SCALE,
        "rounds": rounds,
        "threads": timed["vdsr"].threads,
        "networks": counts,
    }


def verdict(found: dict[str, dict[str, Any]], cost: dict[str, Any]) -> dict[str, Any]:
    """Return which of the claims hold, of what is evaluated so far."""
    statements: dict[str, Any] = {}

    def psnr(name: str, test: str, scale: int) -> float | None:
        value = found.get(name, {}).get("metrics", {}).get(test, {}).get(f"psnr_x{scale}")
        return None if value is None else float(value)

    gains = {}
    for test in SETS:
        for scale in SCALES:
            axial, dense = psnr("ran_drrn_b1u9", test, scale), psnr("drrn_b1u9", test, scale)
            if axial is not None and dense is not None:
                gains[f"{test}_x{scale}"] = round(axial - dense, 3)
    if gains:
        params = {name: cost["networks"][name]["params"] for name in ("drrn_b1u9", "ran_drrn_b1u9")}
        fewer = 100 * (1 - params["ran_drrn_b1u9"] / params["drrn_b1u9"])
        better = sum(gain > 0 for gain in gains.values())
        word = "holds" if better == len(gains) else "does not hold" if better == 0 else "holds in part"
        statements["improves DRRN with 94 % fewer parameters"] = {
            "psnr_gain_db": gains,
            "statement": f"{word} at this schedule, with one seed: {fewer:.1f} % fewer parameters, better in {better} "
            f"of {len(gains)} comparisons, by {min(gains.values()):+.2f} to {max(gains.values()):+.2f} dB.",
        }
    base = psnr(BICUBIC, "set5", 2)
    for name in ("drrn_b1u9", "ran_drrn_b1u9"):
        mine = psnr(name, "set5", 2)
        if mine is not None and base is not None:
            gain = mine - base
            word = "reached" if gain >= GAIN_BAR else "missed"
            statements[f"{name} above bicubic"] = f"{gain:+.2f} dB on Set5 x2: {GAIN_BAR} dB {word}."
    mine, theirs = psnr("lean_sr_x2", "set5", 2), psnr("vdsr", "set5", 2)
    if mine is not None and theirs is not None:
        times = cost["networks"]["lean_sr_x2"]["vdsr_takes_times_as_long"]
        word = "reached" if mine >= theirs - BEHIND_BAR and times >= TIMES_BAR else "missed"
        statements["lean_sr against VDSR"] = (
            f"{mine - theirs:+.2f} dB on Set5 x2 at 1/{times:.1f} of its time: within {BEHIND_BAR} dB at 1/20 {word}."
        )
    return statements


def report(ledger: Ledger, cost: dict[str, Any]) -> dict[str, Any]:
    """Return everything found so far."""
    found = {name: entry for name in (BICUBIC, "vdsr", *NETWORKS) if (entry := known(ledger, name))}
    return {"settings": ledger.settings, "costs": cost, "networks": found, "verdict": verdict(found, cost)}


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    local = os.environ.get("LEANCONV_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="train and evaluate what is missing")
    parser.add_argument("--only", nargs="+", choices=(BICUBIC, "vdsr", *NETWORKS), help="these networks")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(local) / "superres" if local else None,
        help="folder of train291, set5, set14 and bsd100 (default: $LEANCONV_DATA/superres)",
    )
    parser.add_argument(
        "--vdsr",
        type=Path,
        default=Path(local) / "weights/vdsr_291.safetensors" if local else None,
        help="weights of VDSR (default: $LEANCONV_DATA/weights/vdsr_291.safetensors)",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/superres"), help="folder of the runs")
    parser.add_argument("--rounds", type=int, default=3, help="timed passes of each network")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of training and timing")
    parser.add_argument("--device", help="where to train (default: the accelerator if there is one)")
    parser.add_argument("--quick", action="store_true", help="a few steps, small timings; nothing is written")
    return parser.parse_args()


def main() -> None:
    """Train and evaluate what is asked for, time, write the result file."""
    options = arguments()
    torch.set_num_threads(options.threads)
    ledger = Ledger(options.output, settings(options.quick))
    if options.train:
        if options.data is None or options.vdsr is None:
            raise UserError("--data and --vdsr are missing, and LEANCONV_DATA is not set: give the folder and weights.")
        for name in options.only or (BICUBIC, "vdsr", *NETWORKS):
            if name in NETWORKS and "training" not in known(ledger, name):
                train_one(name, ledger, options.data, options.device, options.quick)
            evaluate_missing(name, ledger, options.data, options.vdsr, options.quick)
    cost = costs(options.rounds, options.threads, (72, 128) if options.quick else OUTPUT)
    payload = report(ledger, cost)
    if not options.quick:
        print(f"Written to {write_results('superres', payload)}")
    print(json.dumps(payload["verdict"], indent=2))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error}")
