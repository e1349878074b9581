"""A network made ready to be measured, and put back exactly as it was."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from leanconv.errors import UserError

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put every module into evaluation mode, and afterwards back into the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def cpu_threads(count: int | None) -> Iterator[int]:
    """Let PyTorch use ``count`` threads within an operator (None: as many as now), and restore them."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def checked_device(device: torch.device | str) -> torch.device:
    """Return ``device`` with its index, so that it compares equal to that of a tensor on it.

    Raises:
        UserError: There is no such device here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        here = ["cpu"]
        if torch.accelerator.is_available():
            kind = torch.accelerator.current_accelerator()
            here += [f"{kind}:{index}" for index in range(torch.accelerator.device_count())]
        raise UserError(f"`device` {str(device)!r} is not available, this machine has {' and '.join(here)}.") from error


def checked_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return ``dtype``.

    Raises:
        UserError: It is not a floating-point type.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UserError(f"`dtype` must be a floating-point torch.dtype such as torch.float32, got {dtype!r}.")
    return dtype


def placed(
    model: nn.Module,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
) -> nn.Module:
    """Return ``model`` itself where it already is as wanted, else a copy that is.

    Args:
        model: The network.
        device: Where its tensors should be; None leaves them.
        dtype: Type of its floating-point tensors; None leaves it.
        channels_last: Whether 4-D and 5-D weights should have channels innermost in memory.
    """
    tensors = [*model.parameters(), *model.buffers()]
    elsewhere = device is not None and any(tensor.device != device for tensor in tensors)
    converted = dtype is not None and any(t.is_floating_point() and t.dtype != dtype for t in tensors)
    reordered = channels_last and not all(map(has_channels_last, tensors))
    if not (elsewhere or converted or reordered):
        return model
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    if channels_last:
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data = with_channels_last(tensor.data)
    return model


def has_channels_last(tensor: Tensor) -> bool:
    """Return whether a tensor has channels innermost in memory, or no such layout (it is neither 4-D nor 5-D)."""
    layout = _LAYOUTS.get(tensor.dim())
    return layout is None or tensor.is_contiguous(memory_format=layout)


def with_channels_last(tensor: Tensor) -> Tensor:
    """Return a 4-D or 5-D tensor with channels innermost in memory; any other tensor as it is."""
    return tensor if has_channels_last(tensor) else tensor.contiguous(memory_format=_LAYOUTS[tensor.dim()])
