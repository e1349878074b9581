"""Latency: the time of a forward pass, comparable between networks on a machine that others use too."""

import gc
import random
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.errors import UserError, nearest
from leanconv.measurement.arguments import positive
from leanconv.measurement.environment import versions
from leanconv.measurement.forward import run
from leanconv.measurement.placement import cpu_threads, evaluating, placed, with_channels_last
from leanconv.measurement.timing import calls_for, seconds

#: A timed sample consists of as many forward passes as take this long, so that the clock's own cost vanishes.
LEAST_SAMPLE_S = 5e-3


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass of a batch, over several rounds.

    Attributes:
        median_s: Median seconds.
        q25_s: Lower quartile.
        q75_s: Upper quartile.
        rounds: Timed samples.
        batch: Inputs in the batch.
        threads: CPU threads that an operator may use.
        device: Device type and index, such as ``"cpu"`` or ``"cuda:0"``.
        dtype: Type of the input, such as ``"float32"``.
        versions: Versions of Python, PyTorch and leanconv (and CUDA, where it is used).
        channels_last: Whether weights and inputs had channels innermost in memory.
        calls: Forward passes in one timed sample.
        samples_s: Seconds of one forward pass in every round, in the order of the rounds.
    """

    median_s: float
    q25_s: float
    q75_s: float
    rounds: int
    batch: int
    threads: int
    device: str
    dtype: str
    versions: dict[str, str]
    channels_last: bool = False
    calls: int = 1
    samples_s: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        # JSON knows no tuples: a record that was read back equals the one that was written.
        object.__setattr__(self, "samples_s", tuple(self.samples_s))


@dataclass(frozen=True)
class Ratio:
    """How many times as long one network takes as another, from the ratios of the single rounds.

    Attributes:
        median: Median of the rounds' ratios.
        q25: Lower quartile.
        q75: Upper quartile.
        rounds: Rounds compared.
    """

    median: float
    q25: float
    q75: float
    rounds: int


def paired_ratio(latency: Latency, baseline: Latency) -> Ratio:
    """Return ``latency / baseline`` round by round.

    Both must come from one call of :func:`measure_latency`: networks are timed next to each other in every round,
    so whatever else slows the machine down for a while cancels.

    Raises:
        UserError: The two do not have the same number of rounds, or no samples.
    """
    rounds = len(latency.samples_s)
    if rounds == 0 or rounds != len(baseline.samples_s):
        raise UserError(
            f"`latency` and `baseline` must have been measured together, but have {rounds} and "
            f"{len(baseline.samples_s)} samples."
        )
    ratios = [a / b for a, b in zip(latency.samples_s, baseline.samples_s, strict=True)]
    return Ratio(*_quartiles(ratios), rounds=rounds)


def measure_latency(
    models: Mapping[str, nn.Module | Callable[..., Any]],
    example_input: Tensor | Sequence[Tensor],
    *,
    rounds: int = 20,
    warmup: int = 3,
    threads: int | None = None,
    channels_last: bool | Collection[str] = False,
    seed: int = 0,
) -> dict[str, Latency]:
    """Time forward passes of one or several networks under the same conditions.

    Every round times each network once, in an order shuffled anew, so that a machine that is slow for a while is
    slow for all; compare with :func:`paired_ratio`.  Modules run in evaluation mode and are left as found;
    everything runs under ``torch.inference_mode``.  Warm-up is not timed, and compiles what compiles on first use.

    Args:
        models: Networks by name.  Any other callable, such as the session of another runtime, is timed as it is.
        example_input: The input of all of them, or one tensor per positional argument; it says device and dtype.
        rounds: Timed samples of each network; a sample is as many forward passes as take 5 ms.
        warmup: Untimed forward passes of each network.
        threads: CPU threads that an operator may use; None leaves the setting.  It is restored afterwards.
        channels_last: Names of the networks to run with channels innermost in memory (a copy of the network and
            of the input is converted); True for all.
        seed: Of the order within the rounds.

    Raises:
        UserError: An argument is out of range, or the input does not fit a network.
    """
    positive("rounds", rounds)
    positive("warmup", warmup)
    if threads is not None:
        positive("threads", threads)
    if not models:
        raise UserError("`models` must name at least one network, got none.")
    inputs = (example_input,) if isinstance(example_input, Tensor) else tuple(example_input)
    inner = _names(channels_last, models)
    device = inputs[0].device
    with ExitStack() as stack:
        used_threads = stack.enter_context(cpu_threads(threads))
        calls = {name: stack.enter_context(_prepared(model, inputs, name in inner)) for name, model in models.items()}
        stack.enter_context(torch.inference_mode())
        for call in calls.values():
            for _ in range(warmup):
                run(call.func, call.args)
        per_sample = {name: calls_for(call, LEAST_SAMPLE_S, device) for name, call in calls.items()}
        samples = _interleaved(calls, per_sample, rounds, device, seed)
    results = {}
    for name, times in samples.items():
        median, q25, q75 = _quartiles(times)
        results[name] = Latency(
            median_s=median,
            q25_s=q25,
            q75_s=q75,
            rounds=rounds,
            batch=inputs[0].shape[0] if inputs[0].dim() else 1,
            threads=used_threads,
            device=str(device),
            dtype=str(inputs[0].dtype).removeprefix("torch."),
            versions=versions(),
            channels_last=name in inner,
            calls=per_sample[name],
            samples_s=tuple(times),
        )
    return results


def _names(channels_last: bool | Collection[str], models: Mapping[str, Any]) -> set[str]:
    if isinstance(channels_last, bool):
        return set(models) if channels_last else set()
    for name in channels_last:
        if name not in models:
            raise UserError(f"`channels_last` names {name!r}, which is not measured: {nearest(name, models)}")
    return set(channels_last)


@contextmanager
def _prepared(
    model: nn.Module | Callable[..., Any], inputs: tuple[Tensor, ...], channels_last: bool
) -> Iterator[partial[Any]]:
    if channels_last:
        inputs = tuple(map(with_channels_last, inputs))
    if not isinstance(model, nn.Module):
        yield partial(model, *inputs)
        return
    with evaluating(placed(model, channels_last=channels_last)) as ready:
        yield partial(ready, *inputs)


def _interleaved(
    calls: Mapping[str, Callable[[], object]],
    per_sample: Mapping[str, int],
    rounds: int,
    device: torch.device,
    seed: int,
) -> dict[str, list[float]]:
    order = list(calls)
    shuffle = random.Random(seed).shuffle
    samples: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                samples[name].append(seconds(calls[name], per_sample[name], device) / per_sample[name])
    finally:
        if collecting:
            gc.enable()
    return samples


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median, lower and upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return median, lower, upper
