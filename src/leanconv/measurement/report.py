"""One record of everything measured on a network, and the verb that makes it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.measurement.arguments import positive
from leanconv.measurement.environment import environment
from leanconv.measurement.inputs import example_inputs
from leanconv.measurement.latency import Latency, measure_latency
from leanconv.measurement.memory import allocator_peak
from leanconv.measurement.placement import checked_device, checked_dtype, placed, with_channels_last
from leanconv.measurement.profile import Layer, profile
from leanconv.measurement.roofline import Roofline, measure_roofline


@dataclass(frozen=True)
class Report:
    """What one forward pass of a network costs.

    Attributes:
        model: Name of the network, or of its class.
        input_shapes: Shape of each input, batch included.
        params: Learnable values.
        macs: Multiply-accumulates.
        bytes_moved: Bytes all operators read and write (see :func:`leanconv.measurement.bytes_moved`).
        peak_memory: Most bytes alive at once, with weights and input (see :func:`leanconv.measurement.peak_memory`).
        weight_memory: Bytes of parameters and buffers.
        layers: The modules; their ``params``, ``macs`` and ``bytes_moved`` add up to the network's.
        device: Where it was measured.
        dtype: Type of the first input.
        environment: Machine, library versions and date.
        latency: Time of the pass, if asked for.
        roofline: Ceilings of the device, if asked for.
    """

    model: str
    input_shapes: tuple[tuple[int, ...], ...]
    params: int
    macs: int
    bytes_moved: int
    peak_memory: int
    weight_memory: int
    layers: tuple[Layer, ...]
    device: str
    dtype: str
    environment: dict[str, Any]
    latency: Latency | None = None
    roofline: Roofline | None = None

    @property
    def floor_s(self) -> float | None:
        """Least seconds the pass can take on this device; None without a roofline."""
        return self.roofline.floor_s(self.macs, self.bytes_moved) if self.roofline else None

    @property
    def floor_share(self) -> float | None:
        """The floor as a fraction of the median latency (one is ideal); None without both."""
        return self.floor_s / self.latency.median_s if self.floor_s is not None and self.latency else None

    @property
    def achieved_gflops(self) -> float | None:
        """10⁹ floating-point operations a second, two a multiply-accumulate; None without a latency."""
        return 2e-9 * self.macs / self.latency.median_s if self.latency else None

    @property
    def achieved_gbs(self) -> float | None:
        """10⁹ bytes read plus written a second; None without a latency."""
        return 1e-9 * self.bytes_moved / self.latency.median_s if self.latency else None

    def to_dict(self) -> dict[str, Any]:
        """Return the record, and what follows from it, as JSON-able values."""
        derived = ("floor_s", "floor_share", "achieved_gflops", "achieved_gbs")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)


def measure(
    model: nn.Module,
    input_size: Sequence[int] | None = None,
    *,
    example: Tensor | Sequence[Tensor] | None = None,
    latency: bool = False,
    roofline: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    threads: int | None = None,
    channels_last: bool = False,
    rounds: int = 20,
    warmup: int = 3,
) -> Report:
    """Measure a network in evaluation mode: parameters, multiply-accumulates, bytes moved, memory, time.

    Everything but the time is counted, not timed, and takes a fraction of a second even for large networks.
    The network is left exactly as found; where another ``device``, ``dtype`` or memory layout is asked for,
    a copy is measured.

    Args:
        model: Any module.
        input_size: Shape of the input, batch first.  By default a batch of one of ``model.input_size`` (C, H, W)
            where the network has that attribute, else ``(1, 3, 32, 32)``.
        example: The input itself, or one tensor per positional argument, instead of ``input_size``.
        latency: Whether to time the forward pass.
        roofline: Whether to measure what the device can do at most, for the floor under the time.  The bandwidth
            is that of copies at least as large as the largest operator's tensors.
        device: Where to measure; by default where the network is.
        dtype: Floating-point type to measure in; by default the network's.
        threads: CPU threads that an operator may use while timed; None leaves the setting.
        channels_last: Whether 4-D and 5-D tensors have channels innermost in memory.
        rounds: Timed samples.
        warmup: Untimed forward passes before them.

    Raises:
        UserError: An argument is out of range, or the input does not fit the network.

    Example:
        >>> report = measure(nn.Conv2d(3, 8, 3, padding=1, bias=False), (1, 3, 32, 32))
        >>> report.params, report.macs
        (216, 221184)
    """
    positive("rounds", rounds)
    positive("warmup", warmup)
    if threads is not None:
        positive("threads", threads)
    place = None if device is None else checked_device(device)
    kind = None if dtype is None else checked_dtype(dtype)
    inputs = example_inputs(model, input_size, example, device=place, dtype=kind)
    if channels_last:
        inputs = tuple(map(with_channels_last, inputs))
    ready = placed(model, device=place, dtype=kind, channels_last=channels_last)
    counted = profile(ready, inputs)
    where = inputs[0].device
    timed = None
    if latency:
        timed = measure_latency(
            {"": ready}, inputs, rounds=rounds, warmup=warmup, threads=threads, channels_last=channels_last
        )[""]
    ceilings = None
    if roofline:
        ceilings = measure_roofline(
            device=where, dtype=inputs[0].dtype, threads=threads, working_set=counted.largest_operator
        )
    return Report(
        model=_name(model),
        input_shapes=tuple(tuple(tensor.shape) for tensor in inputs),
        params=counted.params,
        macs=counted.macs,
        bytes_moved=counted.bytes_moved,
        peak_memory=allocator_peak(ready, inputs) if where.type == "cuda" else counted.peak_memory,
        weight_memory=counted.weight_memory,
        layers=counted.layers,
        device=str(where),
        dtype=str(inputs[0].dtype).removeprefix("torch."),
        environment={**environment(where), **({} if threads is None else {"threads": threads})},
        latency=timed,
        roofline=ceilings,
    )


def _name(model: nn.Module) -> str:
    config = getattr(model, "config", None)
    name = config.get("name") if isinstance(config, dict) else None
    return name if isinstance(name, str) else type(model).__name__
