"""The record of a comparison: what was trained and measured, JSON-able both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from leanconv.comparison.difference import Difference, mean_difference
from leanconv.errors import UserError, nearest
from leanconv.measurement import Latency, Ratio, paired_ratio

FORMAT = 1
COSTS = ("params", "macs", "bytes_moved", "peak_memory", "latency_s")


@dataclass(frozen=True)
class Run:
    """One finished training of one model with one seed.

    Attributes:
        model: Name of the model.
        seed: Seed of the initial weights, the order of the images and their augmentation.
        accuracy: Top-1 accuracy on the test images after the last epoch, a fraction.
        best_accuracy: The highest test accuracy of any epoch; it is chosen on the test images, so it flatters.
        loss: Mean cross-entropy on the test images after the last epoch.
        epochs: Epochs trained.
        seconds: Wall-clock seconds of training and evaluation, over all calls that the run was resumed in.
    """

    model: str
    seed: int
    accuracy: float
    best_accuracy: float
    loss: float
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Entry:
    """One model of a comparison: its costs for one batch of images and its accuracy over the seeds.

    Attributes:
        model: Name of the model.
        params: Learnable parameters.
        macs: Multiply-accumulates of one forward pass.
        bytes_moved: Bytes that the operators read and write in one forward pass.
        peak_memory: Peak memory of one forward pass in bytes.
        latency: Measured time of one forward pass.
        runs: The finished trainings, one a seed.
        engines: Measured time of the trained network, folded for inference, in every engine that was asked for.
    """

    model: str
    params: int
    macs: int
    bytes_moved: int
    peak_memory: int
    latency: Latency
    runs: tuple[Run, ...]
    engines: Mapping[str, Latency] = field(default_factory=dict)

    @property
    def latency_s(self) -> float:
        """Median seconds of one forward pass."""
        return self.latency.median_s

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Test accuracy of every run, a fraction."""
        return tuple(run.accuracy for run in self.runs)

    @property
    def accuracy(self) -> float:
        """Mean test accuracy over the seeds, a fraction."""
        return fmean(self.accuracies)

    @property
    def accuracy_sd(self) -> float | None:
        """Sample standard deviation of the test accuracy over the seeds; None for a single seed."""
        return stdev(self.accuracies) if len(self.runs) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """Several models trained alike on the same data and measured side by side.

    Attributes:
        entries: The models in the order they were asked for.
        baseline: Name of the model that ratios and differences are taken to.
        settings: What every run has in common: data, recipe, width (see :mod:`leanconv.comparison.ledger`).
        environment: Device, threads, versions and date of the measurements.
    """

    entries: tuple[Entry, ...]
    baseline: str
    settings: dict[str, Any]
    environment: dict[str, Any]

    def __getitem__(self, model: str) -> Entry:
        for entry in self.entries:
            if entry.model == model:
                return entry
        raise UserError(
            f"{model!r} is not in this comparison: {nearest(model, [entry.model for entry in self.entries])}"
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that were trained."""
        return tuple(sorted({run.seed for entry in self.entries for run in entry.runs}))

    def ratio(self, entry: Entry, cost: str) -> float:
        """Return a cost (one of ``COSTS``) as a multiple of the baseline's.

        For the latency this is the median of the rounds' ratios, in which a machine that was slow for a while
        cancels.
        """
        baseline = self[self.baseline]
        if cost == "latency_s":
            return paired_ratio(entry.latency, baseline.latency).median
        return float(getattr(entry, cost) / getattr(baseline, cost))

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that times were measured in."""
        return tuple(self.entries[0].engines)

    def engine_ratio(self, entry: Entry, engine: str) -> Ratio:
        """Return the time in an engine as a multiple of the baseline's in the same one, round by round."""
        return paired_ratio(entry.engines[engine], self[self.baseline].engines[engine])

    def difference(self, entry: Entry) -> Difference:
        """Return the accuracy of ``entry`` minus the baseline's, with its uncertainty."""
        return mean_difference(entry.accuracies, self[self.baseline].accuracies)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values, with the derived means, ratios and differences."""
        models = []
        for entry in self.entries:
            derived = {
                "accuracy": entry.accuracy,
                "accuracy_sd": entry.accuracy_sd,
                "ratios": {cost: self.ratio(entry, cost) for cost in COSTS},
                "engine_ratios": {engine: self.engine_ratio(entry, engine).median for engine in self.engines},
                "accuracy_difference": asdict(self.difference(entry)),
            }
            models.append({**asdict(entry), **derived})
        return {
            "format": FORMAT,
            "baseline": self.baseline,
            "models": models,
            "settings": self.settings,
            "environment": self.environment,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Comparison:
        """Rebuild a comparison from :meth:`to_dict`; derived values are computed again.

        Raises:
            UserError: The record is of another format.
        """
        if record.get("format") != FORMAT:
            raise UserError(f"A comparison record has format {FORMAT}, this one has {record.get('format')!r}.")
        entries = tuple(
            Entry(
                model=model["model"],
                params=model["params"],
                macs=model["macs"],
                bytes_moved=model["bytes_moved"],
                peak_memory=model["peak_memory"],
                latency=Latency(**model["latency"]),
                runs=tuple(Run(**run) for run in model["runs"]),
                # Records from before engines were compared have none.
                engines={name: Latency(**times) for name, times in model.get("engines", {}).items()},
            )
            for model in record["models"]
        )
        return cls(entries, record["baseline"], record["settings"], record["environment"])

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read a ``report.json``.

        Raises:
            UserError: The file does not exist or is not a record of a comparison.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text()))
        except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{str(path)!r} is not a comparison's report.json ({error}).") from error
