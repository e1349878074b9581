"""What may be done to each layer, with cost and error."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from leanconv.compression.conversion import fitted, in_metric
from leanconv.compression.methods import Method
from leanconv.compression.observation import Observed
from leanconv.compression.plan import Entry, efficient
from leanconv.compression.problem import Problem
from leanconv.compression.record import described
from leanconv.measurement import count_macs, count_params, measure_latency, paired_ratio
from leanconv.ops.structured import Conv

#: Timed samples of every module whose latency is planned with.
ROUNDS = 15


def menu_of(
    conv: Conv, observed: Observed, problem: Problem, methods: Sequence[Method], prices: "Prices"
) -> list[Entry]:
    """Return the entries for a layer, the one that keeps it first, with MACs or parameters as their cost.

    Entries that cost no less than keeping the layer, or that others beat, are left out.

    Args:
        conv: The layer.
        observed: What the original network told of it.
        problem: What fitting it means.
        methods: Methods to try; one with a rank is tried with that rank only.
        prices: What things cost.
    """
    scale = 0.5 if observed.sensitivity is not None else 1 / max(float(problem.energy.sum()), 1e-30)
    shapes = observed.input_shapes

    keep = prices.counted(conv, None, (), shapes)
    entries, keys = [Entry(None, (), keep[0], scale * problem.square_error(problem.trained), 0.0)], [keep]
    for method in methods:
        if method.refusal(conv) is not None:
            continue
        ranks = method.candidates(conv) if method.wanted is None else [method.rank_for(conv)]
        for rank in ranks:
            cost = prices.counted(conv, method, rank, shapes)
            if all(own >= kept for own, kept in zip(cost, keep, strict=True)):
                continue
            fit = fitted(conv, problem, method.draft(conv), rank)
            if fit is None:
                continue
            kernel = in_metric(fit.kernel, problem)
            error = problem.square_error(kernel)
            entries.append(Entry(method.with_rank(rank), rank, cost[0], scale * error, problem.relative(error)))
            keys.append(cost)
    return efficient(entries, keys)


class Prices:
    """What layers and their replacements cost; equal ones in equal places are counted, or timed, once.

    Args:
        quantity: ``"macs"``, ``"params"`` or ``"latency"``.
        batch: Inputs in a timed batch.
        threads: CPU threads while timing, None for the setting.
        compiled: Whether to time what ``torch.compile`` makes of a module.
    """

    def __init__(self, quantity: str, *, batch: int = 1, threads: int | None = None, compiled: bool = False) -> None:
        self.quantity, self.batch, self.threads, self.compiled = quantity, batch, threads, compiled
        self._counted: dict[str, tuple[float, ...]] = {}
        self._timed: dict[str, float] = {}

    def counted(
        self, conv: Conv, method: Method | None, rank: tuple[int, ...], shapes: Sequence[tuple[int, ...]]
    ) -> tuple[float, ...]:
        """Return MACs or parameters of a replacement (of the layer itself without a method), both for latency.

        Args:
            conv: The layer.
            method: What replaces it.
            rank: With these ranks.
            shapes: Of its inputs in one forward pass, without the batch.
        """
        key = _key(conv, method, rank, shapes)
        if key not in self._counted:
            meta = copy.deepcopy(conv).to("meta")
            module = meta if method is None else method.build(meta, rank, bias=True)
            macs = sum(count_macs(module, example=torch.empty(1, *shape, device="meta")) for shape in shapes)
            params = count_params(module)
            both = (float(macs), float(params))
            self._counted[key] = {"macs": both[:1], "params": both[1:]}.get(self.quantity, both)
        return self._counted[key]

    def timed(self, conv: Conv, menu: Sequence[Entry], shapes: Sequence[tuple[int, ...]]) -> list[Entry]:
        """Return the entries with seconds as their cost, without those that are no faster than keeping the layer.

        Args:
            conv: The layer.
            menu: Its entries, the one that keeps it first.
            shapes: Of its inputs in one forward pass, without the batch.
        """
        keys = [_key(conv, entry.method, entry.rank, shapes) for entry in menu]
        if any(key not in self._timed for key in keys):
            modules = [
                copy.deepcopy(conv) if entry.method is None else entry.method.build(conv, entry.rank, bias=True)
                for entry in menu
            ]
            seconds = [0.0] * len(menu)
            for shape in shapes:
                example = torch.randn(self.batch, *shape, generator=torch.Generator().manual_seed(0))
                times = self.time(modules, example.to(conv.weight))
                seconds = [before + now for before, now in zip(seconds, times, strict=True)]
            self._timed |= dict(zip(keys, seconds, strict=True))
        priced = [replace(entry, cost=self._timed[key]) for key, entry in zip(keys, menu, strict=True)]
        return efficient([entry for entry in priced if entry.method is None or entry.cost < priced[0].cost])

    def time(self, modules: Sequence[nn.Module], example: torch.Tensor) -> list[float]:
        """Return the seconds of each module on an input, timed side by side.

        Those of the first are its median; those of the others follow from their ratios to it, round by round, which a
        machine that is slow for a while does not disturb.
        """
        ready: dict[str, Any] = {
            str(index): torch.compile(module.eval()) if self.compiled else module
            for index, module in enumerate(modules)
        }
        found = measure_latency(ready, example, rounds=ROUNDS, threads=self.threads)
        first = found["0"]
        return [first.median_s * paired_ratio(found[name], first).median for name in ready]


def _key(conv: Conv, method: Method | None, rank: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> str:
    return repr((described(conv), conv.bias is not None, method and method.to_dict(), rank, list(shapes)))
