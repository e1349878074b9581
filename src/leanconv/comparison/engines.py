"""Latency of trained networks where they are to run."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from leanconv.deployment import engine_named, fold
from leanconv.deployment.costs import target_of
from leanconv.errors import UserError
from leanconv.measurement import Latency, measure_latency


def require_engines(names: Sequence[str]) -> None:
    """Make sure that engines can be used, before hours of training and not after.

    Raises:
        UserError: One is unknown, named twice or not installed.
    """
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"engines has {name!r} {names.count(name)} times: name every engine once.")
        engine_named(name).require()


def engine_latencies(
    models: Mapping[str, nn.Module],
    engines: Sequence[str],
    shape: tuple[int, ...],
    rounds: int,
    *,
    threads: int | None = None,
) -> dict[str, dict[str, Latency]]:
    """Time networks in every engine, on the CPU, folded by the prices of that engine.

    Rounds are interleaved among the networks of an engine.  One engine follows the other: threads of one that wait
    for work would slow down the next.

    Args:
        models: Trained networks in evaluation mode, by name.
        engines: Names of engines.
        shape: Of the input, batch first.
        rounds: Timed samples of each network.
        threads: CPU threads that an operator may use; as many as PyTorch's by default.

    Returns:
        By engine, then by network.
    """
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = {}
    for name in engines:
        engine, target = engine_named(name), target_of(name)
        runners = {
            model: engine.load(fold(network, input_size=shape, target=target), example, threads=threads)
            for model, network in models.items()
        }
        found[name] = measure_latency(runners, example, rounds=rounds, threads=threads)
    return found
