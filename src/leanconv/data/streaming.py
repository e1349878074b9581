"""A split decoded on the way by worker processes, for data sets too large for memory."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from leanconv.data.augment import RESAMPLING_DRAWS
from leanconv.data.decoding import centre_box, decode, random_box, resample, to_tensor
from leanconv.data.sources import Images
from leanconv.data.splits import Pick
from leanconv.errors import UserError


def default_workers() -> int:
    """Return the processes to decode with: the processors this one may run on, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """Labelled images that are opened, decoded and resampled as they are read.

    An image that has the size asked for is taken as it is.  Any other gives the central part of the size's
    proportions, or, in training with ``Augment.crop_area``, a random part.

    Args:
        images: The encoded images.
        labels: (N,) int64.
        image_size: Height and width in pixels.
        channels: 1 or 3.
        centre: Side of the central part as a fraction of the largest that fits; 224 / 256 is usual for photos.
        workers: Processes that decode; 0 decodes in this one.
        mean: Mean of each channel, of values 0 to 1; ``None`` stands for 0.
        std: Standard deviation of each channel; ``None`` stands for 1.
    """

    images: Images
    labels: Tensor
    image_size: tuple[int, int]
    channels: int
    centre: float = 1.0
    workers: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """Return the same images with other constants."""
        return replace(self, mean=mean, std=std)

    def on(self, device: torch.device) -> Self:
        """Return itself."""
        return self

    def read(
        self, picks: Sequence[Pick], device: torch.device, crop_area: float | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each pick the images (B, C, H, W) uint8 and the labels (B,) on the device.

        Raises:
            UserError: An image cannot be decoded.
        """
        loader = DataLoader(
            _Decoded(self, picks, crop_area),
            batch_size=None,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            images, labels = batch
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


class _Decoded(Dataset[tuple[Tensor, Tensor] | UserError]):
    """Whole batches by number, as worker processes decode them."""

    def __init__(self, split: StreamSplit, picks: Sequence[Pick], crop_area: float | None) -> None:
        self._split, self._picks, self._crop_area = split, picks, crop_area

    def __len__(self) -> int:
        return len(self._picks)

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor] | UserError:
        split = self._split
        rows, draws = self._picks[batch]
        pixels = torch.empty(len(rows), split.channels, *split.image_size, dtype=torch.uint8)
        try:
            for place, row in enumerate(rows.tolist()):
                pixels[place] = self._pixels(row, draws[place, RESAMPLING_DRAWS])
        except UserError as error:
            # Returned, because an exception that leaves a worker arrives with its traceback as the message.
            return error
        return pixels, split.labels[rows]

    def _pixels(self, row: int, draws: Tensor) -> Tensor:
        split = self._split
        image = decode(split.images, row, split.channels)
        width, height = image.size
        if self._crop_area is not None:
            box = random_box(width, height, self._crop_area, draws)
        elif (height, width) == split.image_size:
            box = (0.0, 0.0, width, height)
        else:
            box = centre_box(width, height, split.image_size, split.centre)
        return to_tensor(resample(image, split.image_size, box))
