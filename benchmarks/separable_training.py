"""When does a separable convolution with several kernels a channel train faster by the dense kernel they make?

Forward and backward passes of ``DepthwiseSeparableConv2d``, 3x3, in float32 and bfloat16, one thread, channels last in
memory: factored, a depthwise and a pointwise convolution, against composed, the kernel of both made anew and one dense
convolution.  Both are timed in turns.  ``COMPOSED_CHANNELS`` in ``leanconv.ops.separable`` is read off the result.

    python benchmarks/separable_training.py            # two minutes; writes results/separable_training.json
    python benchmarks/separable_training.py --quick    # seconds; few rounds, nothing is written
"""

import statistics
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from leanconv.measurement.timing import calls_for, seconds
from leanconv.ops import DepthwiseSeparableConv2d
from leanconv.ops.separable import COMPOSED_CHANNELS
from results_file import write_results

#: Channels, side and batch: what CIFAR networks have, and wider ones.
SIZES = ((16, 32, 64), (32, 16, 64), (64, 8, 128), (128, 16, 16), (256, 14, 8))
MULTIPLIERS = (2, 3, 5)
PRECISIONS = {"float32": False, "bfloat16": True}
LEAST_SAMPLE_S = 0.01
CPU = torch.device("cpu")


def step(form: Callable[[Tensor], Tensor], x: Tensor, bf16: bool) -> Callable[[], object]:
    """Return a forward and a backward pass."""

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = form(x)
        y.backward(torch.ones_like(y))
        return y

    return run


def row(channels: int, side: int, batch: int, terms: int, precision: str, rounds: int) -> dict[str, Any]:
    """Time one size."""
    torch.manual_seed(0)
    operator = DepthwiseSeparableConv2d(channels, channels, 3, padding=1, depth_multiplier=terms)
    operator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(batch, channels, side, side).to(memory_format=torch.channels_last).requires_grad_()
    forms = {"factored": lambda x: operator.pointwise(operator.depthwise(x)), "composed": operator._composed}
    runs = {name: step(form, x, PRECISIONS[precision]) for name, form in forms.items()}
    calls = {name: calls_for(run, LEAST_SAMPLE_S, CPU) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run, calls[name], CPU) / calls[name])
    ratios = [slow / fast for slow, fast in zip(times["factored"], times["composed"], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "shape": [batch, channels, side, side],
        "depth_multiplier": terms,
        "precision": precision,
        "median_s": {name: statistics.median(values) for name, values in times.items()},
        "composed_times_faster": {"median": median, "q25": low, "q75": high},
    }


def main(
    rounds: Annotated[int, typer.Option(min=2, help="Timed samples of each form.")] = 15,
    quick: Annotated[bool, typer.Option("--quick", help="Two sizes, few rounds; write nothing.")] = False,
) -> None:
    """Time both forms."""
    torch.set_num_threads(1)
    rows = [
        row(*size, terms, precision, 2 if quick else rounds)
        for size in SIZES[:: 3 if quick else 1]
        for terms in MULTIPLIERS
        for precision in PRECISIONS
    ]
    table = Table("Shape", "Kernels a channel", "Precision", "Composed is times as fast")
    for found in rows:
        ratio = found["composed_times_faster"]
        text = f"{ratio['median']:.2f} ({ratio['q25']:.2f} to {ratio['q75']:.2f})"
        table.add_row("x".join(map(str, found["shape"])), str(found["depth_multiplier"]), found["precision"], text)
    Console().print(table)
    if not quick:
        found = {"threads": 1, "rounds": rounds, "composed_up_to_channels": COMPOSED_CHANNELS, "rows": rows}
        Console().print(f"Written to {write_results('separable_training', found)}")


if __name__ == "__main__":
    typer.run(main)
