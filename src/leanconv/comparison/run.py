"""Train several networks alike, measure them side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leanconv.comparison.build import build_model, build_models
from leanconv.comparison.engines import engine_latencies, require_engines
from leanconv.comparison.ledger import Ledger
from leanconv.comparison.record import Comparison, Entry, Run
from leanconv.data import ImageData
from leanconv.errors import UserError, nearest
from leanconv.measurement import environment, measure, measure_latency
from leanconv.training import Recipe, load_weights, train
from leanconv.training.device import compute_device

OnRun = Callable[[str, int, Run | None], None]
"""Called with model, seed and, if there is nothing left to do, the finished run."""

MAX_SEEDS = 1000
ROUNDS = 60


def compare(
    names: Sequence[str],
    data: ImageData,
    recipe: Recipe | None = None,
    output_dir: str | Path = "runs/compare",
    *,
    width: int | None = None,
    seeds: int = 2,
    baseline: str | None = None,
    threads: int | None = None,
    device: torch.device | str | None = None,
    engines: Sequence[str] = (),
    progress: bool = True,
    on_run: OnRun | None = None,
) -> Comparison:
    """Train models with the same recipe on the same data, and measure what they cost.

    Every model is trained once a seed; the seeds are the recipe's and those that follow it, and a seed decides
    the initial weights, the order of the images and their augmentation.  Finished runs are kept in
    ``output_dir`` and not repeated, a run that was interrupted goes on after its last finished epoch; models
    and seeds may be added by a later call.  Costs are measured anew by every call, in one forward pass of one image,
    the latencies in interleaved rounds so that a change in the machine's speed meets all models.

    Args:
        names: Two or more names of models (``list_models()``); one is allowed and then its own baseline.
        data: The data set.
        recipe: How to train; its seed is the first of the seeds.
        output_dir: Folder of the comparison.
        width: ``base_width`` of every model; the published ones by default.
        seeds: How many seeds to train.
        baseline: The model that ratios are taken to; the one with most multiply-accumulates by default.
        threads: CPU threads of the latency measurement.
        device: Where to train and measure; the accelerator if there is one, by default.
        engines: What else to measure latency in, of ``leanconv.deployment.ENGINES`` (``"eager"``, ``"compile"``,
            ``"onnxruntime"``, ``"openvino"``, …): there the trained networks of the first seed run on the CPU, folded
            for inference (:func:`leanconv.fold`).
        progress: Whether training reports on standard error.
        on_run: Called before and after every run.

    Returns:
        The record; :mod:`leanconv.comparison` writes it as JSON, picture, table and page.

    Raises:
        UserError: A name, number or recipe is no good, an engine is not installed, the folder holds runs with other
            settings, or a training diverges.
    """
    recipe = recipe or Recipe()
    models = build_models(names, data, width)
    if baseline is not None and baseline not in models:
        raise UserError(f"baseline={baseline!r} is not among the compared models: {nearest(baseline, models)}")
    if not 1 <= seeds <= MAX_SEEDS:
        raise UserError(f"seeds={seeds} is out of range: train 1 to {MAX_SEEDS} seeds.")
    require_engines(engines)
    where = _device(device)
    settings = run_settings(data, recipe, width)
    ledger = Ledger(output_dir, settings)
    runs = train_runs(
        list(models), data, recipe, ledger, width=width, seeds=seeds, device=device, progress=progress, on_run=on_run
    )
    entries = _measure_entries(models, data, runs, threads=threads, device=where)
    if engines:
        trained = {
            name: load_weights(model.cpu(), ledger.run_folder(name, recipe.seed) / "last.safetensors")
            for name, model in models.items()
        }
        times = engine_latencies(trained, engines, (1, data.channels, *data.image_size), ROUNDS, threads=threads)
        entries = tuple(
            replace(entry, engines={name: found[entry.model] for name, found in times.items()}) for entry in entries
        )
    return Comparison(
        entries=entries,
        baseline=baseline or max(entries, key=lambda entry: entry.macs).model,
        settings=settings,
        environment={**environment(where), "threads": entries[0].latency.threads},
    )


def run_settings(data: ImageData, recipe: Recipe, width: int | None) -> dict[str, Any]:
    """Return everything the runs of a comparison share, as JSON-able values; the seed is not among it."""
    training = recipe.to_dict()
    del training["seed"]
    return {
        "data": {
            "name": data.name,
            "classes": data.num_classes,
            "channels": data.channels,
            "image_size": list(data.image_size),
            "mean": list(data.mean),
            "std": list(data.std),
            "train": len(data.train),
            "test": len(data.test),
        },
        "width": width,
        "recipe": training,
    }


def train_runs(
    names: Sequence[str],
    data: ImageData,
    recipe: Recipe,
    ledger: Ledger,
    *,
    width: int | None,
    seeds: int,
    device: torch.device | str | None = None,
    progress: bool = True,
    on_run: OnRun | None = None,
) -> list[Run]:
    """Train what the ledger does not hold yet, all models of a seed before the next seed.

    Args:
        names: Names of models.
        data: The data set.
        recipe: How to train; its seed is the first.
        ledger: Where runs are kept.
        width: ``base_width`` of every model.
        seeds: How many seeds.
        device: Where to train.
        progress: Whether training reports on standard error.
        on_run: Called before and after every run.

    Returns:
        One run for every model and seed.
    """
    runs = []
    for seed in range(recipe.seed, recipe.seed + seeds):
        for name in names:
            run = ledger.finished(name, seed)
            if run is None:
                if on_run is not None:
                    on_run(name, seed, None)
                run = _train_one(name, data, replace(recipe, seed=seed), ledger, width, device, progress)
                ledger.record(run)
            if on_run is not None:
                on_run(name, seed, run)
            runs.append(run)
    return runs


def _train_one(
    name: str,
    data: ImageData,
    recipe: Recipe,
    ledger: Ledger,
    width: int | None,
    device: torch.device | str | None,
    progress: bool,
) -> Run:
    torch.manual_seed(recipe.seed)
    model = build_model(name, data, width)
    try:
        result = train(
            model,
            data,
            recipe,
            ledger.run_folder(name, recipe.seed),
            resume=True,
            device=device,
            log=("jsonl",),
            progress=progress,
        )
    except UserError as error:
        raise UserError(f"Training {name} with seed {recipe.seed} failed: {error}") from error
    return Run(
        model=name,
        seed=recipe.seed,
        accuracy=result.last["test_top1"],
        best_accuracy=result.best["test_top1"],
        loss=result.last["test_loss"],
        epochs=len(result.history),
        seconds=sum(row["seconds"] for row in result.history),
    )


def _device(device: torch.device | str | None) -> torch.device:
    return compute_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _measure_entries(
    models: dict[str, nn.Module],
    data: ImageData,
    runs: Sequence[Run],
    *,
    threads: int | None,
    device: torch.device,
) -> tuple[Entry, ...]:
    shape = (1, data.channels, *data.image_size)
    reports = {name: measure(model.to(device), shape) for name, model in models.items()}
    latencies = measure_latency(models, torch.zeros(shape, device=device), rounds=ROUNDS, threads=threads)
    return tuple(
        Entry(
            model=name,
            params=report.params,
            macs=report.macs,
            bytes_moved=report.bytes_moved,
            peak_memory=report.peak_memory,
            latency=latencies[name],
            runs=tuple(run for run in runs if run.model == name),
        )
        for name, report in reports.items()
    )
