"""The clock: calls timed together, with the device's queue empty before and after."""

import math
from collections.abc import Callable
from time import perf_counter

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all it was asked to do."""
    if device.type not in {"cpu", "meta"}:
        torch.accelerator.synchronize(device)


def seconds(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """Return the seconds that ``calls`` calls take together."""
    synchronize(device)
    start = perf_counter()
    for _ in range(calls):
        call()
    synchronize(device)
    return perf_counter() - start


def calls_for(call: Callable[[], object], least: float, device: torch.device) -> int:
    """Return how many calls together take at least ``least`` seconds, and do so twice: one delay is no reason."""
    calls = 1
    while (taken := seconds(call, calls, device)) < least or (taken := seconds(call, calls, device)) < least:
        calls = max(2 * calls, math.ceil(calls * least / max(taken, 1e-9)))
    return calls
