"""A data set as training sees it: two splits, its classes and its normalisation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from leanconv.data.augment import Augment
from leanconv.errors import UserError

Pick = tuple[Tensor, Tensor]
"""What one batch is made of: row numbers (B,) int64 and uniform numbers (B, DRAWS), both on the CPU."""


class Split(Protocol):
    """Labelled images that can be read in any order; held in memory or decoded on the way."""

    @property
    def labels(self) -> Tensor:
        """Class numbers, (N,) int64."""

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Mean of each channel, of values 0 to 1; ``None`` stands for 0."""

    @property
    def std(self) -> tuple[float, ...] | None:
        """Standard deviation of each channel; ``None`` stands for 1."""

    def __len__(self) -> int: ...

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """Return the same images with other constants."""

    def on(self, device: torch.device) -> Self:
        """Return the same images, on the device if they are held in memory."""

    def read(
        self, picks: Sequence[Pick], device: torch.device, crop_area: float | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each pick the images (B, C, H, W) uint8 and the labels (B,) on the device."""


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """Labelled images held in memory as one tensor.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        mean: Mean of each channel, of values 0 to 1; ``None`` stands for 0.
        std: Standard deviation of each channel; ``None`` stands for 1.

    Raises:
        UserError: The two tensors do not belong together.
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise UserError(
                f"images={self.images.dtype} of shape {tuple(self.images.shape)} is not a batch of pixels: "
                "give uint8 of shape (N, C, H, W)."
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise UserError(
                f"labels={self.labels.dtype} of shape {tuple(self.labels.shape)} does not fit "
                f"{len(self.images)} images: give int64 of shape ({len(self.images)},)."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """Return the same images with other constants."""
        return replace(self, mean=mean, std=std)

    def on(self, device: torch.device) -> Self:
        """Return the same images on the device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def read(
        self, picks: Sequence[Pick], device: torch.device, crop_area: float | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each pick the images (B, C, H, W) uint8 and the labels (B,) on the device.

        Raises:
            UserError: A resampling crop is asked for; it needs the original images.
        """
        if crop_area is not None:
            raise UserError(
                f"crop_area={crop_area} resamples the original images, which a set held in memory no longer has: "
                "load it with streaming=True or use crop_padding."
            )
        images, labels = self.images.to(device), self.labels.to(device)
        # One transfer an epoch instead of one a batch.
        for rows in torch.cat([rows for rows, _ in picks]).to(device).split([len(rows) for rows, _ in picks]):
            yield images[rows], labels[rows]


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set for image classification.

    Args:
        name: The name it was loaded by; of a local folder, the folder's own name.
        classes: Name of each class, in the order of the labels.
        channels: Channels of an image.
        image_size: Height and width in pixels.
        mean: Mean of each channel, of values 0 to 1.
        std: Standard deviation of each channel.
        train: Images to train on.
        test: Images to report on.
        augment: What is usually done to its training images.

    Raises:
        UserError: ``mean`` or ``std`` does not fit the channels.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    test: Split
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise UserError(
                    f"{name}={tuple(values)} has {len(values)} values for images of {self.channels} channels: "
                    "give one a channel."
                )
        if not all(0 < value < float("inf") for value in self.std):
            raise UserError(f"std={tuple(self.std)} is not a standard deviation: give positive numbers.")
        if not all(abs(value) < float("inf") for value in self.mean):
            raise UserError(f"mean={tuple(self.mean)} is not a colour: give numbers, of values 0 to 1.")
        for split in ("train", "test"):
            object.__setattr__(self, split, getattr(self, split).normalised(self.mean, self.std))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data it was trained on."""
        return {"name": self.name, "classes": list(self.classes), "images": len(self.train)}

    def with_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> "ImageData":
        """Return the same images normalised by other constants, such as those given weights were trained with.

        Args:
            mean: Mean of each channel, of values 0 to 1.
            std: Standard deviation of each channel.

        Raises:
            UserError: They do not fit the channels.
        """
        return replace(self, mean=tuple(mean), std=tuple(std))
