"""What a network is trained for: the loss of a batch, its metrics, and which data fits which network."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.data.batches import Batches
from leanconv.data.splits import ImageData
from leanconv.errors import UserError, nearest
from leanconv.training.metrics import at_least_float32, classification_sums
from leanconv.training.recipe import Recipe


class EvaluationBatches(Protocol):
    """What an evaluation goes through."""

    device: torch.device

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's part of inputs and targets."""


class TrainBatches(EvaluationBatches, Protocol):
    """What an epoch of training goes through."""

    @property
    def global_batch(self) -> int:
        """Inputs in a step, over all processes."""


class Task(Protocol):
    """The part of training that differs between classification, super-resolution and distillation."""

    monitor: str
    """Entry of :meth:`sums` that tells the best epoch; larger is better."""
    unit: str
    """What a step trains on, in the plural."""

    def check(self, model: nn.Module, data: Any) -> None:
        """Raise :class:`UserError` if the network cannot be trained or evaluated on the data."""

    def train_batches(self, model: nn.Module, data: Any, recipe: Recipe, **processes: Any) -> TrainBatches:
        """Return the batches to train on; ``processes`` are device, seed, rank and world_size."""

    def test_batches(self, data: Any, split: str, batch_size: int, **processes: Any) -> EvaluationBatches:
        """Return the batches of a split to evaluate on."""

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

    monitor, unit = "top1", "images"

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

    def train_batches(self, model: nn.Module, data: ImageData, recipe: Recipe, **processes: Any) -> Batches:
        """Return augmented training images in batches."""
        return Batches(data.train, recipe.batch_size, train=True, augment=_augmentation(data, recipe), **processes)

    def test_batches(self, data: ImageData, split: str, batch_size: int, **processes: Any) -> Batches:
        """Return the images of a split in batches."""
        return Batches(data.test if split == "test" else data.train, batch_size, train=False, **processes)

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


def _augmentation(data: ImageData, recipe: Recipe) -> Any:
    """Return the data set's augmentation with the recipe's changes."""
    known = [entry.name for entry in dataclasses.fields(data.augment)]
    for name in recipe.augment:
        if name not in known:
            raise UserError(f"Recipe value augment.{name} is not known: {nearest(name, known)}")
    return dataclasses.replace(data.augment, **recipe.augment)
