"""Comparisons made by hand, shared by the tests of what is done with them."""

from dataclasses import replace

from leanconv.comparison import Comparison, Entry, Run
from leanconv.measurement import Latency

# model, accuracies, parameters, multiply-accumulates, milliseconds
ROWS = (
    ("ran26", (0.93, 0.94), 9_200_770, 671_128_320, 4.0),
    ("axial26", (0.92, 0.925), 9_200_770, 671_128_320, 3.9),
    ("resnet26_cifar", (0.91, 0.93), 40_907_650, 2_554_344_960, 8.0),
    ("mobilenet26_cifar", (0.925, 0.9255), 36_549_010, 2_045_160_960, 9.0),
)


def latency(milliseconds: float, jitter: float = 0.05) -> Latency:
    """A latency of three rounds."""
    seconds = milliseconds / 1e3
    return Latency(
        median_s=seconds,
        q25_s=seconds * (1 - jitter),
        q75_s=seconds * (1 + jitter),
        rounds=3,
        batch=1,
        threads=1,
        device="cpu",
        dtype="float32",
        versions={"torch": "2.8"},
        samples_s=(seconds * (1 - jitter), seconds, seconds * (1 + jitter)),
    )


def entry(model: str, accuracies: tuple[float, ...], params: int, macs: int, milliseconds: float) -> Entry:
    """An entry with one run an accuracy."""
    runs = tuple(
        Run(model, seed, accuracy, accuracy, loss=0.3, epochs=2, seconds=1.5)
        for seed, accuracy in enumerate(accuracies)
    )
    return Entry(model, params, macs, 4 * macs, 4 * params, latency(milliseconds), runs)


def with_engines(record: Comparison, engines: tuple[str, ...] = ("eager", "onnxruntime")) -> Comparison:
    """The comparison with times in engines: a half, a third, … of the others."""
    entries = tuple(
        replace(
            entry,
            engines={name: latency(1e3 * entry.latency_s / place) for place, name in enumerate(engines, start=2)},
        )
        for entry in record.entries
    )
    return replace(record, entries=entries)


def comparison(rows=ROWS, baseline: str = "resnet26_cifar") -> Comparison:
    """A comparison of ``rows``."""
    settings = {
        "data": {"name": "toy <set>", "train": 96, "test": 33},
        "width": 16,
        "recipe": {"epochs": 2, "lr": 0.1, "step_epochs": [], "nesterov": False},
    }
    environment = {"device": "A processor", "threads": 1, "torch": "2.8", "date": "2026-01-01T00:00:00+00:00"}
    return Comparison(tuple(entry(*row) for row in rows), baseline, settings, environment)
