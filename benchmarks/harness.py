"""What the training loop costs: images per second of ``train()`` over those of a bare loop on the same network.

The bare loop does nothing but forward, loss, backward and optimizer step on one batch that never changes; ``train()``
also shuffles, augments and normalises, sets the learning rate, logs and watches for a loss that is not finite.
Both are timed in turns, and the median of the ratios of neighbours is what counts.

    python benchmarks/harness.py [--quick] [--device cuda] [--precision bf16] [--channels-last]
"""

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from leanconv.data import ArraySplit, Augment, ImageData
from leanconv.models import create_model
from leanconv.training import Recipe, train
from results_file import write_results

BATCH = 128
BAR = 0.95
NETWORKS: dict[str, dict[str, int]] = {"resnet20_cifar": {}, "ran26": {"base_width": 16}}


def synthetic_data(steps: int) -> ImageData:
    """Noise in the shape of CIFAR-10, as many batches as steps."""
    images = torch.randint(0, 256, (steps * BATCH, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 10, (steps * BATCH,))
    return ImageData(
        name="noise",
        classes=tuple("0123456789"),
        channels=3,
        image_size=(32, 32),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        train=ArraySplit(images, labels),
        test=ArraySplit(images[:BATCH], labels[:BATCH]),
        augment=Augment(crop_padding=4, flip=True),
    )


def bare_speed(model: nn.Module, recipe: Recipe, device: torch.device, steps: int) -> float:
    """Images per second of forward, loss, backward and step alone."""
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
    inputs, targets = torch.randn(BATCH, 3, 32, 32, device=device), torch.randint(0, 10, (BATCH,), device=device)
    if recipe.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    model.train()
    _synchronise(device)
    started = time.perf_counter()
    for _ in range(steps):
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = F.cross_entropy(model(inputs), targets, label_smoothing=recipe.label_smoothing)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    _synchronise(device)
    return steps * BATCH / (time.perf_counter() - started)


def train_speed(model: nn.Module, recipe: Recipe, device: torch.device, data: ImageData) -> float:
    """Images per second that an epoch of ``train()`` reports, logs written."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(model, data, recipe, folder, device=device, log=("jsonl",), progress=False)
    return float(result.last["images_per_second"])


def compare(name: str, recipe: Recipe, device: torch.device, steps: int, repetitions: int) -> dict[str, Any]:
    """Time both loops in turns and return their medians and ratio."""
    bare = create_model(name, num_classes=10, **NETWORKS[name]).to(device)
    if recipe.channels_last:
        bare = bare.to(memory_format=torch.channels_last)
    trained = copy.deepcopy(bare)
    data = synthetic_data(steps)
    bare_speed(bare, recipe, device, 2)
    train_speed(trained, recipe, device, synthetic_data(2))
    pairs = []
    for repetition in range(repetitions):
        speeds = {}
        for which in ("bare", "train") if repetition % 2 else ("train", "bare"):
            if which == "bare":
                speeds[which] = bare_speed(bare, recipe, device, steps)
            else:
                speeds[which] = train_speed(trained, recipe, device, data)
        pairs.append(speeds)
    ratios = [pair["train"] / pair["bare"] for pair in pairs]
    return {
        "images_per_second": {which: statistics.median(pair[which] for pair in pairs) for which in ("bare", "train")},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Compare the loops for every network and write ``results/harness.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps in one timing")
    parser.add_argument("--repetitions", type=int, default=9, help="timings of each loop, in turns")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs; writes no result")
    parser.add_argument("--output", type=Path, help="folder of the result, benchmarks/results by default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    steps, repetitions = (4, 3) if arguments.quick else (arguments.steps, arguments.repetitions)
    recipe = Recipe(
        epochs=1,
        batch_size=BATCH,
        lr=0.01,
        warmup_epochs=0,
        precision=arguments.precision,
        channels_last=arguments.channels_last,
    )
    device = torch.device(arguments.device)
    results = {}
    for name in NETWORKS:
        results[name] = compare(name, recipe, device, steps, repetitions)
        verdict = "meets" if results[name]["ratio"] >= BAR else "misses"
        print(f"{name}: train() at {results[name]['ratio']:.3f} of the bare loop, {verdict} the bar of {BAR}")
    if not arguments.quick:
        settings = {
            "device": str(device),
            "threads": arguments.threads,
            "batch": BATCH,
            "steps": steps,
            "repetitions": repetitions,
            "precision": arguments.precision,
            "channels_last": arguments.channels_last,
        }
        payload = {"bar": BAR, "settings": settings, "networks": results}
        name = "harness" if device.type == "cpu" else f"harness_{device.type}"
        print(write_results(name, payload, **({"folder": arguments.output} if arguments.output else {})))


if __name__ == "__main__":
    main()
