"""What a network is trained for: the loss of a batch, its metrics, and which data fits which network."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.data.splits import ImageData
from leanconv.errors import UserError
from leanconv.training.metrics import at_least_float32, classification_sums


class Task(Protocol):
    """The part of training that differs between classification, super-resolution and distillation."""

    monitor: str
    """Entry of :meth:`sums` that tells the best epoch; larger is better."""

    def check(self, model: nn.Module, data: ImageData) -> None:
        """Raise :class:`UserError` if the network cannot be trained on the data."""

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, with the graph to differentiate it."""

    def sums(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the metrics of a batch as float64 sums over its images, ``loss`` among them."""


class Classify:
    """Classification of images: cross-entropy, top-1 and top-5 accuracy.

    Args:
        label_smoothing: Share of the target spread evenly over all classes while training.  The loss of an
            evaluation is never smoothed.
    """

    monitor = "top1"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def check(self, model: nn.Module, data: ImageData) -> None:
        """Pass one blank image through the network and compare its scores with the classes of the data.

        Raises:
            UserError: The channels differ, the image is too small, or there are more classes than scores.
        """
        channels = _input_channels(model)
        if channels is not None and channels != data.channels:
            raise UserError(
                f"The model takes images of {channels} channels and {data.name} has {data.channels}: "
                f"create the model with in_channels={data.channels}."
            )
        first = next(model.parameters(), torch.zeros(()))
        image = torch.zeros(1, data.channels, *data.image_size, device=first.device, dtype=first.dtype)
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                scores = model(image)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"The model does not take the images of {data.name}, of shape {tuple(image.shape[1:])}: {reason}"
            ) from None
        finally:
            model.train(was_training)
        if not isinstance(scores, Tensor) or scores.dim() != 2:
            raise UserError("The model is no classifier: its output must be one tensor of shape (N, classes).")
        if scores.shape[1] < data.num_classes:
            raise UserError(
                f"The model tells {scores.shape[1]} classes apart and {data.name} has {data.num_classes}: "
                f"create the model with num_classes={data.num_classes}."
            )

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch."""
        scores = at_least_float32(model(inputs))
        return F.cross_entropy(scores, targets, label_smoothing=self.label_smoothing)

    def sums(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return loss and hits summed over a batch."""
        return classification_sums(model(inputs), targets)


def _input_channels(model: nn.Module) -> int | None:
    """Channels the model says it takes (models of this package do), if it does."""
    size = getattr(model, "input_size", None)
    return int(size[0]) if size is not None else None
