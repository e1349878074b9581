"""What a network is measured on: random tensors of a size, or tensors the caller brings."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from leanconv.errors import UserError

FALLBACK_SIZE = (1, 3, 32, 32)


def example_inputs(
    model: nn.Module,
    input_size: Sequence[int] | None = None,
    example: Tensor | Sequence[Tensor] | None = None,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, ...]:
    """Return the positional arguments of one forward pass.

    Args:
        model: The network; its first floating-point parameter decides where ``device`` and ``dtype`` do not.
        input_size: Shape of the one input, batch first.  By default a batch of one of ``model.input_size``
            (C, H, W) where the network has that attribute, else ``(1, 3, 32, 32)``.
        example: The input itself, or one tensor per positional argument, instead of ``input_size``; floating-point
            tensors are converted to ``dtype``.
        device: Where the tensors go.
        dtype: Floating-point type.

    Raises:
        UserError: Both ``input_size`` and ``example`` are given, or one of them is malformed.
    """
    reference = next((p for p in model.parameters() if p.is_floating_point()), None)
    if example is not None:
        if input_size is not None:
            raise UserError(
                f"`input_size` ({tuple(input_size)}) and `example` are two ways to say the same: give one of them."
            )
        tensors = (example,) if isinstance(example, Tensor) else example
        if (
            not isinstance(tensors, Sequence)
            or not tensors
            or not all(isinstance(tensor, Tensor) for tensor in tensors)
        ):
            raise UserError(f"`example` must be a tensor or a sequence of tensors, got {example!r}.")
        return tuple(
            tensor.detach().to(device=device, dtype=dtype if tensor.is_floating_point() else None) for tensor in tensors
        )
    size = checked_size(default_size(model) if input_size is None else input_size)
    if dtype is None:
        dtype = torch.get_default_dtype() if reference is None else reference.dtype
    if device is None:
        device = torch.device("cpu") if reference is None else reference.device
    if device.type == "meta":
        return (torch.empty(size, dtype=dtype, device=device),)
    # A generator of its own, so that measuring does not change what a seeded program draws next.
    try:
        values = torch.randn(size, generator=torch.Generator().manual_seed(0))
    except RuntimeError as error:
        raise UserError(f"`input_size` {size} is too large for the memory of this machine.") from error
    return (values.to(device=device, dtype=dtype),)


def default_size(model: nn.Module) -> tuple[int, ...]:
    """Return the shape of a batch of one input the network was designed for, as far as it says."""
    size = getattr(model, "input_size", None)
    if isinstance(size, (tuple, list)) and all(isinstance(length, int) for length in size):
        return (1, *size)
    return FALLBACK_SIZE


def checked_size(input_size: Sequence[int]) -> tuple[int, ...]:
    """Return ``input_size`` as a tuple.

    Raises:
        UserError: It is not a non-empty sequence of positive integers.
    """
    if (
        not isinstance(input_size, Sequence)
        or not input_size
        or not all(type(length) is int and length > 0 for length in input_size)
    ):
        raise UserError(
            f"`input_size` must be positive integers with the batch first, such as {FALLBACK_SIZE}, got {input_size!r}."
        )
    return tuple(input_size)
