"""Peak memory: the most bytes of tensors alive at one moment of a forward pass."""

import weakref
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from leanconv.measurement.accesses import outputs
from leanconv.measurement.forward import observe, run
from leanconv.measurement.inputs import example_inputs
from leanconv.measurement.placement import evaluating


class LiveMemoryMode(TorchDispatchMode):
    """Follows the storages that operators allocate until the last tensor on each is gone.

    Args:
        resident: Tensors that stay alive throughout: weights, buffers and inputs.

    Attributes:
        live: Bytes of the storages alive now, the resident ones included.
        peak: The largest ``live`` so far.
    """

    def __init__(self, resident: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in resident:
            self._follow(tensor)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operator and follow what it allocated."""
        out = func(*args, **(kwargs or {}))
        for tensor in outputs(func, args, out):
            self._follow(tensor)
        return out

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages[key] = weakref.ref(storage, partial(self._forget, key, size))
            self.live += size
            self.peak = max(self.peak, self.live)

    def _forget(self, key: int, size: int, _: object) -> None:
        del self._storages[key]
        self.live -= size


def resident_tensors(model: nn.Module, inputs: Iterable[Tensor] = ()) -> list[Tensor]:
    """Return the tensors that are alive throughout a forward pass: parameters, buffers and inputs."""
    return list(chain(model.parameters(), model.buffers(), inputs))


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages behind tensors, shared ones once."""
    storages = {s._cdata: s.nbytes() for s in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())


def allocator_peak(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Return the peak memory of a forward pass on CUDA as its allocator saw it.

    Includes what the allocator rounds up and the workspaces of libraries, but nothing that was allocated before
    other than the network's tensors and inputs.  The device's peak statistic is reset.
    """
    device = inputs[0].device
    with evaluating(model), torch.inference_mode():
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run(model, inputs)
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
    return int(peak - before) + storage_bytes(resident_tensors(model, inputs))


def peak_memory(
    model: nn.Module,
    input_size: Sequence[int] | None = None,
    *,
    example: Tensor | Sequence[Tensor] | None = None,
) -> int:
    """Return the most bytes of tensors that are alive at one moment of a forward pass without gradients.

    Parameters, buffers and the input are counted, they stay throughout; so are the intermediate tensors and the
    output, from the operator that makes them until their last reference goes.  On CUDA this is what the allocator
    reports, workspaces of the libraries included; elsewhere it is the sum of the tensors' storages, found without
    computing anything, and workspaces inside operators are not seen.

    Args:
        model: Any module; it is left as found.
        input_size: Shape of the input, batch first (see :func:`leanconv.measurement.measure`).
        example: Input tensors instead of a size.

    Raises:
        UserError: The input does not fit the network.
    """
    inputs = example_inputs(model, input_size, example)
    if inputs[0].is_cuda:
        return allocator_peak(model, inputs)
    memory: LiveMemoryMode = observe(model, inputs, lambda *placed: LiveMemoryMode(resident_tensors(*placed)))
    return memory.peak
