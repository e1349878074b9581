"""Does training save as much time as a residual axial network saves multiply-accumulates?

Two tables, one thread, float32.  *Operators*: the residual axial pair with its batch norms, forward and backward: the
fused operator against PyTorch's own in both memory layouts, eager and compiled, and against the same maths written as
shifted taps (pad, narrow, multiply, add), which the compiler can fuse.  Beside it stands the floor: 16 passes over the
tensor, which the fused operator reads and writes, at the speed of ``clone``.  *Steps*: a training step (loss,
gradients, SGD with momentum) of ``ran26`` and ``resnet26_cifar`` in every configuration, the baseline's own fused
batch norms among them; what counts is the best of each.

All forms of a case are timed next to each other in every round, in an order shuffled anew; a timed sample is as many
runs as take 10 ms.

    python benchmarks/fused_training.py            # a quarter of an hour; writes benchmarks/results/fused_training.json
    python benchmarks/fused_training.py --quick    # seconds; small shapes, nothing compiled, nothing written
"""

import random
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from leanconv.measurement.timing import calls_for, seconds
from leanconv.models import create_model
from leanconv.ops import AxialConv2d
from leanconv.ops.kernels import plain_forms
from results_file import write_results

SHAPES = ((16, 120, 32, 32), (16, 240, 16, 16), (16, 960, 4, 4), (128, 16, 32, 32), (128, 64, 8, 8))
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
#: Base width, batch, the ratio of times to reach, and whether compiled steps are timed too: wide ones take too long.
STEPS = ((16, 128, 2.5, True), (120, 32, 3.0, False))
LEAN, BASELINE = "ran26", "resnet26_cifar"
OPERATOR_BAR = 2.0
#: Passes over the tensor: forward two reads and a write for each axis, backward four reads and a write.
PASSES = 16
LEAST_SAMPLE_S = 0.01
CPU = torch.device("cpu")

Step = Callable[[], object]


class ShiftedTaps(nn.Module):
    """The pair as shifted taps, for the compiler to fuse; it shares its weights with the pair."""

    def __init__(self, pair: AxialConv2d) -> None:
        super().__init__()
        self.pair = pair

    def forward(self, x: Tensor) -> Tensor:
        """Pad, narrow, multiply and add; then normalise by the statistics of the batch."""
        for axis, (conv, norm) in enumerate(zip(self.pair.convolutions(), self.pair.norms, strict=True)):
            taps, size = conv.weight.flatten(1), x.shape[2 + axis]
            padded = F.pad(x, (0, 0, 1, 1) if axis == 0 else (1, 1, 0, 0))
            y = sum(padded.narrow(2 + axis, tap, size) * _spread(taps[:, tap]) for tap in range(3))
            variance, mean = torch.var_mean(y, (0, 2, 3), correction=0, keepdim=True)
            normal = (y - mean) * torch.rsqrt(variance + norm.eps)
            x = x + normal * _spread(norm.weight) + _spread(norm.bias)
        return x


def _spread(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _compiled(module: nn.Module) -> Any:
    return torch.compile(module)


def operator_forms(shape: tuple[int, ...], compiled: bool) -> dict[str, Step]:
    """Return forward and backward passes of one pair in every form; all give the same gradients."""
    torch.manual_seed(0)
    channels = shape[1]
    pair = AxialConv2d(
        channels, channels, 3, padding="same", groups=channels, bias=False, residual=True, norm_layer=nn.BatchNorm2d
    )
    image, gradient = torch.randn(shape), torch.randn(shape)

    def step(form: Callable[[Tensor], Tensor], layout: str, plain: bool) -> Step:
        x = image.clone(memory_format=LAYOUTS[layout]).requires_grad_()
        dy = gradient.clone(memory_format=LAYOUTS[layout])

        def run() -> Tensor | None:
            pair.zero_grad(set_to_none=True)
            x.grad = None
            with plain_forms() if plain else nullcontext():
                y = form(x)
            y.backward(dy)
            return x.grad

        return run

    forms = {f"eager {layout}": step(pair, layout, True) for layout in LAYOUTS}
    if compiled:
        torch._dynamo.reset()
        for layout in LAYOUTS:
            forms[f"compiled {layout}"] = step(_compiled(pair), layout, True)
            forms[f"shifted taps, compiled {layout}"] = step(_compiled(ShiftedTaps(pair)), layout, True)
    forms["fused"] = step(pair, "channels-last", False)
    expected = forms["eager contiguous"]()
    for name, form in forms.items():
        torch.testing.assert_close(form(), expected, rtol=1e-3, atol=1e-3, msg=lambda text, n=name: f"{n}: {text}")
    return forms


def step_forms(width: int, batch: int, compiled: bool) -> dict[str, Step]:
    """Return training steps of both networks in every configuration, each on a copy of the same weights."""
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))

    def step(name: str, layout: str, plain: bool, compile_it: bool) -> Step:
        torch.manual_seed(0)
        model: Any = create_model(name, num_classes=10, base_width=width)
        model = model.to(memory_format=LAYOUTS[layout]).train()
        x = images.contiguous(memory_format=LAYOUTS[layout])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        forward = _compiled(model) if compile_it else model

        def run() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            with plain_forms() if plain else nullcontext():
                loss = F.cross_entropy(forward(x), labels)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return run

    forms = {}
    for name in (LEAN, BASELINE):
        for layout in LAYOUTS:
            forms[f"{name} eager {layout}"] = step(name, layout, True, False)
            if compiled:
                torch._dynamo.reset()
                forms[f"{name} compiled {layout}"] = step(name, layout, True, True)
                forms[f"{name} compiled {layout}"]()
        forms[f"{name} fused"] = step(name, "channels-last", False, False)
    return forms


def interleaved(forms: dict[str, Step], rounds: int, warmup: int) -> dict[str, list[float]]:
    """Time every form once a round; seconds of one run."""
    order, shuffle = list(forms), random.Random(0).shuffle
    for form in forms.values():
        for _ in range(warmup):
            form()
    calls = {name: calls_for(form, LEAST_SAMPLE_S, CPU) for name, form in forms.items()}
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            times[name].append(seconds(forms[name], calls[name], CPU) / calls[name])
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return {"median_s": median, "q25_s": low, "q75_s": high}


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def fastest(times: dict[str, list[float]]) -> str:
    """Return the name of the form with the lowest median."""
    return min(times, key=lambda name: statistics.median(times[name]))


def operator_row(shape: tuple[int, ...], rounds: int, compiled: bool) -> dict[str, Any]:
    """Time one shape."""
    forms = operator_forms(shape, compiled)
    image = torch.randn(shape)
    times = interleaved({**forms, "clone": image.clone}, rounds, warmup=3)
    clone = times.pop("clone")
    others = {name: values for name, values in times.items() if name != "fused"}
    best = fastest(others)
    floor = PASSES / 2 * statistics.median(clone)
    return {
        "shape": list(shape),
        "forms": {name: summary(values) for name, values in times.items()},
        "clone_s": statistics.median(clone),
        "floor_s": floor,
        "above_floor": statistics.median(times["fused"]) / floor,
        "best_other": best,
        "times_faster": ratio(others[best], times["fused"]),
    }


def step_row(width: int, batch: int, bar: float, rounds: int, compiled: bool) -> dict[str, Any]:
    """Time one width and batch."""
    times = interleaved(step_forms(width, batch, compiled), rounds, warmup=2)
    best = {name: fastest({form: t for form, t in times.items() if form.startswith(name)}) for name in (LEAN, BASELINE)}
    plain = fastest({form: t for form, t in times.items() if form.startswith(BASELINE) and "fused" not in form})
    reached = ratio(times[best[BASELINE]], times[best[LEAN]])
    return {
        "base_width": width,
        "batch": batch,
        "compiled_timed": compiled,
        "forms": {name: summary(values) for name, values in times.items()},
        "best": best,
        "ratio": reached,
        "ratio_to_plain_baseline": ratio(times[plain], times[best[LEAN]]),
        "bar": bar,
        "meets_bar": reached >= bar,
    }


def show(title: str, rows: list[dict[str, Any]], label: Callable[[dict[str, Any]], str], key: str) -> None:
    """Print the rows for people, times in milliseconds."""
    table = Table(title=title)
    for heading in ("Case", "Form", "Median (ms)", "Quartiles (ms)", "Ratio"):
        table.add_column(heading)
    for row in rows:
        for index, (name, times) in enumerate(row["forms"].items()):
            spread = f"{1e3 * times['q25_s']:.2f} to {1e3 * times['q75_s']:.2f}"
            first = (label(row), f"{row[key]:.2f}") if index == 0 else ("", "")
            table.add_row(first[0], name, f"{1e3 * times['median_s']:.2f}", spread, first[1])
    Console().print(table)


def main(
    rounds: Annotated[int, typer.Option(min=2, help="Timed runs of each form of a pair.")] = 25,
    step_rounds: Annotated[int, typer.Option(min=2, help="Timed training steps of each configuration.")] = 9,
    compiled: Annotated[bool, typer.Option("--compiled/--eager", help="Also time compiled forms.")] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small shapes, few rounds, nothing compiled or written.")
    ] = False,
) -> None:
    """Time fused training."""
    torch.set_num_threads(1)
    if quick:
        rounds, step_rounds, compiled = 3, 2, False
    shapes = ((4, 32, 32, 32),) if quick else SHAPES
    steps = ((16, 16, 2.5, False),) if quick else STEPS
    operators = [operator_row(shape, rounds, compiled) for shape in shapes]
    show("Residual axial pair", operators, lambda row: "x".join(map(str, row["shape"])), "times_faster")
    gain = statistics.geometric_mean(row["times_faster"] for row in operators)
    Console().print(f"geometric mean {gain:.2f}, lowest {min(row['times_faster'] for row in operators):.2f}")
    trained = [step_row(*case[:3], step_rounds, compiled and case[3]) for case in steps]
    show("Training step", trained, lambda row: f"width {row['base_width']}, batch {row['batch']}", "ratio")
    if quick:
        return
    payload = {
        "settings": {"threads": 1, "dtype": "float32", "rounds": rounds, "step_rounds": step_rounds, "passes": PASSES},
        "operators": {
            "rows": operators,
            "geometric_mean": gain,
            "bar": OPERATOR_BAR,
            "meets_bar": gain >= OPERATOR_BAR and min(row["times_faster"] for row in operators) >= 1,
        },
        "steps": trained,
    }
    Console().print(f"Written to {write_results('fused_training', payload)}")


if __name__ == "__main__":
    typer.run(main)
