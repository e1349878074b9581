"""Calibration inputs: a bounded number of samples, checked once and run in pieces that fit in memory."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.errors import UserError

#: Input elements in one forward pass; activations are a few hundred times that.
PIECE_ELEMENTS = 2**19


class Calibration:
    """Samples that a network is observed on.

    No more than ``images`` samples are read from ``inputs``, so memory is bounded whatever it is.

    Args:
        inputs: Batches ``(N, …)``, or pairs of a batch and something that is ignored, such as labels.
        images: Samples to read.
        device: Where they go.
        dtype: Type of the network's parameters.

    Raises:
        UserError: There is none, or a batch is no floating-point tensor, has a shape of its own, or is not finite.
    """

    def __init__(self, inputs: Iterable[Any], images: int, device: torch.device, dtype: torch.dtype) -> None:
        if images < 1:
            raise UserError(f"`images` must be at least 1, got {images}.")
        if isinstance(inputs, Tensor):
            inputs = [inputs]
        self.batches: list[Tensor] = []
        self.images = 0
        for number, batch in enumerate(inputs):
            x = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
            if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2:
                raise UserError(
                    f"`inputs` must give batches of floating-point samples (N, …), and batch {number} is "
                    f"{_described(x)}."
                )
            if self.batches and x.shape[1:] != self.batches[0].shape[1:]:
                raise UserError(
                    f"`inputs` must give samples of one shape, and batch {number} has {tuple(x.shape[1:])} after "
                    f"{tuple(self.batches[0].shape[1:])}."
                )
            x = x[: images - self.images].detach().to(device=device, dtype=dtype)
            if not bool(torch.isfinite(x).all()):
                raise UserError(f"`inputs` must be finite, and batch {number} holds NaN or infinity.")
            if len(x):
                # Depthwise convolutions are several times faster on CPUs with channels innermost in memory.  A copy in
                # any case, so that a loader may reuse its memory.
                self.batches.append(
                    x.clone(memory_format=torch.channels_last if x.dim() == 4 else torch.preserve_format)
                )
                self.images += len(x)
            if self.images >= images:
                break
        if not self.batches:
            raise UserError("`inputs` gave no samples to calibrate on.")

    def pieces(self) -> Iterator[Tensor]:
        """Yield the samples in batches that fit in memory, always the same ones."""
        size = max(1, PIECE_ELEMENTS // max(1, self.batches[0][0].numel()))
        for batch in self.batches:
            yield from batch.split(size)

    @property
    def sample(self) -> Tensor:
        """The first sample, as a batch of one."""
        return self.batches[0][:1]


def calibration_for(model: nn.Module, inputs: Iterable[Any], images: int) -> Calibration:
    """Return calibration samples on the device and in the type of a network.

    Raises:
        UserError: The network does not take them, or gives another result each time.
    """
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    calibration = Calibration(inputs, images, first.device, first.dtype)
    try:
        with torch.no_grad():
            results = [tensors_in(model(calibration.sample)) for _ in range(2)]
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"`inputs` of shape {tuple(calibration.sample.shape[1:])} do not fit the model: {reason}."
        ) from error
    if not all(torch.equal(a, b) for a, b in zip(*results, strict=True)):
        raise UserError(
            "`model` gives another output each time it sees the same input, even in evaluation mode: layers cannot be "
            "fitted to a random forward pass, so remove what draws random numbers."
        )
    return calibration


def tensors_in(outputs: Any) -> list[Tensor]:
    """Return the floating-point tensors in nested lists, tuples and dictionaries."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, (tuple, list)):
        return [tensor for entry in outputs for tensor in tensors_in(entry)]
    return []


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} and shape {tuple(value.shape)}"
    return f"of type {type(value).__name__}"
