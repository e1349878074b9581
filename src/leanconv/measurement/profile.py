"""Everything one watched forward pass tells, for the whole network and each of its modules."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leanconv.measurement.attribution import Attribution
from leanconv.measurement.counts import count_params
from leanconv.measurement.forward import observe, uncompiled
from leanconv.measurement.memory import LiveMemoryMode, resident_tensors, storage_bytes
from leanconv.measurement.traffic import TrafficMode


@dataclass(frozen=True)
class Layer:
    """One module's own share: what its submodules do is theirs, so the layers add up to the network.

    Attributes:
        name: Its path in the network; empty for the network itself.
        type: Name of its class.
        params: Learnable values of its own; those it shares with an earlier layer are counted there.
        macs: Multiply-accumulates, over all its calls.
        bytes_moved: Bytes its operators read and write, over all its calls.
        output_shape: Shape of its (first) output, batch included; None where it was not called.
    """

    name: str
    type: str
    params: int
    macs: int
    bytes_moved: int
    output_shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Profile:
    """Costs of one forward pass that do not depend on how fast anything is.

    Attributes:
        params: Learnable values.
        macs: Multiply-accumulates.
        bytes_moved: Bytes read and written by all operators.
        largest_operator: Bytes read and written by the operator that moves most.
        peak_memory: Most bytes of tensors alive at once, weights and input included.
        weight_memory: Bytes of parameters and buffers.
        layers: Every module, in the order they were first called; those that were not called come last and only
            if they have parameters.
    """

    params: int
    macs: int
    bytes_moved: int
    largest_operator: int
    peak_memory: int
    weight_memory: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class _Watched:
    flops: FlopCounterMode
    traffic: TrafficMode
    memory: LiveMemoryMode
    attribution: Attribution


@contextmanager
def _watch(model: nn.Module, inputs: Sequence[Tensor]) -> Iterator[_Watched]:
    traffic, memory = TrafficMode(), LiveMemoryMode(resident_tensors(model, inputs))
    flops = FlopCounterMode(display=False)
    attribution = Attribution(model, {"flops": flops.get_total_flops, "bytes": lambda: traffic.total})
    with memory, traffic, flops, attribution:
        yield _Watched(flops, traffic, memory, attribution)


def profile(model: nn.Module, inputs: tuple[Tensor, ...]) -> Profile:
    """Count what one forward pass in evaluation mode costs, without computing it where that is possible.

    Raises:
        UserError: The input does not fit the network, or a lazy layer has not seen an input yet.
    """
    model = uncompiled(model)
    params = count_params(model)
    watched = observe(model, inputs, _watch)
    return Profile(
        params=params,
        macs=int(watched.flops.get_total_flops()) // 2,
        bytes_moved=watched.traffic.total,
        largest_operator=watched.traffic.largest,
        peak_memory=watched.memory.peak,
        weight_memory=storage_bytes(resident_tensors(model)),
        layers=tuple(_layers(model, watched.attribution)),
    )


def _layers(model: nn.Module, attribution: Attribution) -> Iterator[Layer]:
    modules = dict(model.named_modules())
    owned = _own_params(modules)
    idle = [name for name, count in owned.items() if count and name not in attribution.spent]
    for name in [*attribution.spent, *idle]:
        spent = attribution.spent.get(name, {"flops": 0, "bytes": 0})
        yield Layer(
            name=name,
            type=type(modules[name]).__name__,
            params=owned[name],
            macs=spent["flops"] // 2,
            bytes_moved=spent["bytes"],
            output_shape=attribution.output_shapes.get(name),
        )


def _own_params(modules: dict[str, nn.Module]) -> dict[str, int]:
    counted: set[int] = set()
    own = {}
    for name, module in modules.items():
        new = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        own[name] = sum(parameter.numel() for parameter in new)
        counted.update(map(id, new))
    return own
