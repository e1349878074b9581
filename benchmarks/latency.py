"""Does a residual axial network save as much time as it saves multiply-accumulates?

Times ``ran26`` against ``resnet26_cifar`` at the width of Shahadat and Maida (2023, arXiv 2301.04631): 32 x 32
images, 10 classes, eager PyTorch in evaluation and inference mode, batches of 1 and 16, one thread and two, both
memory layouts.  All networks of a configuration are timed next to each other in every round, so ratios hold on a
machine that others use too.  Beside each time stands the roofline's floor and how far above it the network is.

    python benchmarks/latency.py            # minutes; writes benchmarks/results/latency.json
    python benchmarks/latency.py --quick    # seconds; narrow networks, nothing is written
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from leanconv.measurement import Latency, Report, measure, measure_latency, measure_roofline, paired_ratio
from leanconv.models import create_model
from results_file import write_results

LEAN, BASELINE = "ran26", "resnet26_cifar"
LAYOUTS = ("contiguous", "channels_last")


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Narrow networks, few rounds; write nothing.")] = False,
    base_width: Annotated[int, typer.Option(min=1, help="Channels of the first stage.")] = 120,
    rounds: Annotated[int, typer.Option(min=1, help="Timed samples of each network and layout.")] = 30,
) -> None:
    """Time ran26 against resnet26_cifar."""
    base_width, rounds = (8, 3) if quick else (base_width, rounds)
    batches, threads = ((1,), (1,)) if quick else ((1, 16), (1, 2))
    models = {name: create_model(name, num_classes=10, base_width=base_width) for name in (LEAN, BASELINE)}
    rows: list[dict[str, Any]] = []
    for batch in batches:
        reports = {name: measure(model, (batch, 3, 32, 32)) for name, model in models.items()}
        for count in threads:
            rows.extend(configuration(models, reports, batch, count, rounds))
            Console(stderr=True).print(f"batch {batch}, {count} threads: done")
    counts = {name: measure(model, (1, 3, 32, 32)) for name, model in models.items()}
    payload = {
        "settings": {"base_width": base_width, "num_classes": 10, "input": [3, 32, 32], "rounds": rounds},
        "models": {
            name: {key: getattr(report, key) for key in ("params", "macs", "bytes_moved", "peak_memory")}
            for name, report in counts.items()
        },
        "macs_ratio": counts[BASELINE].macs / counts[LEAN].macs,
        "bytes_ratio": counts[BASELINE].bytes_moved / counts[LEAN].bytes_moved,
        "rows": rows,
    }
    Console().print(table(payload))
    if not quick:
        Console().print(f"Written to {write_results('latency', payload)}")


def configuration(
    models: dict[str, nn.Module], reports: dict[str, Report], batch: int, threads: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """Time both networks in both layouts for one batch size and number of threads; one row a layout, and the best."""
    timed = measure_latency(
        {f"{name} {layout}": model for name, model in models.items() for layout in LAYOUTS},
        torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        rounds=rounds,
        threads=threads,
        channels_last=[f"{name} {LAYOUTS[1]}" for name in models],
    )
    floors = {name: floor(report, threads) for name, report in reports.items()}
    fastest = {name: min(LAYOUTS, key=lambda layout: timed[f"{name} {layout}"].median_s) for name in models}
    for label, layouts in (*((layout, dict.fromkeys(models, layout)) for layout in LAYOUTS), ("fastest", fastest)):
        chosen = {name: timed[f"{name} {layouts[name]}"] for name in models}
        yield {
            "batch": batch,
            "threads": threads,
            "layout": label,
            "networks": {
                name: {"layout": layouts[name], **times(latency), **floors[name]} for name, latency in chosen.items()
            },
            "gap": {name: latency.median_s / floors[name]["floor_s"] for name, latency in chosen.items()},
            # The baseline's time as a multiple of the lean network's, to be held against the ratio of MACs.
            "time_ratio": asdict(paired_ratio(chosen[BASELINE], chosen[LEAN])),
        }


def times(latency: Latency) -> dict[str, float]:
    """Return the quartiles of a latency."""
    return {"median_s": latency.median_s, "q25_s": latency.q25_s, "q75_s": latency.q75_s}


def floor(report: Report, threads: int) -> dict[str, float]:
    """Return the roofline's floor for a network, with the ceilings it follows from."""
    # A copy the size of the largest layer stays in the cache that the layer's own tensors stay in.
    ceilings = measure_roofline(threads=threads, working_set=max(layer.bytes_moved for layer in report.layers))
    return {
        "floor_s": ceilings.floor_s(report.macs, report.bytes_moved),
        "peak_gflops": ceilings.peak_gflops,
        "bandwidth_gbs": ceilings.bandwidth_gbs,
    }


def table(payload: dict[str, Any]) -> Table:
    """Return the rows for people, times in milliseconds."""
    result = Table(title=f"{BASELINE} over {LEAN}: {payload['macs_ratio']:.2f}× the MACs")
    for heading in ("Batch", "Threads", "Layout", f"{LEAN} (ms)", f"{BASELINE} (ms)", "Time ratio", "Above the floor"):
        result.add_column(heading, justify="right")
    for row in payload["rows"]:
        ratio = row["time_ratio"]
        result.add_row(
            str(row["batch"]),
            str(row["threads"]),
            row["layout"],
            *(f"{1e3 * row['networks'][name]['median_s']:.2f}" for name in (LEAN, BASELINE)),
            f"{ratio['median']:.2f} ({ratio['q25']:.2f} to {ratio['q75']:.2f})",
            " and ".join(f"{row['gap'][name]:.1f}×" for name in (LEAN, BASELINE)),
        )
    return result


if __name__ == "__main__":
    typer.run(main)
