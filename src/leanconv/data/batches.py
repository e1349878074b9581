"""Batches whose order and augmentation are a pure function of the seed, the epoch and the place in the epoch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from leanconv.data.augment import DRAWS, Augment, normalise
from leanconv.data.splits import Pick, Split
from leanconv.errors import UserError


def batches(
    split: Split,
    batch_size: int,
    *,
    train: bool,
    augment: Augment | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> "Batches":
    """Return the batches of a split; see :class:`Batches`."""
    return Batches(
        split,
        batch_size,
        train=train,
        augment=augment,
        device=device,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )


class Batches:
    """Normalised batches of a split on a device, epoch by epoch.

    With ``train=True`` the images are shuffled and augmented, and an incomplete last batch is dropped (unless it
    is the only one).  With ``train=False`` every image comes once, in order.

    An epoch depends on nothing but ``seed`` and its number: any number of processes sees the same global
    batches, of which each takes a contiguous slice, and any epoch can be repeated after a restart.

    Args:
        split: The images.
        batch_size: Images in a global batch, over all processes.
        train: Whether to shuffle, augment and drop.
        augment: What to do to training images, ``None`` for nothing.
        device: Where batches are wanted; a split held in memory is moved there once.
        seed: Seed of order and augmentation.
        rank: Number of this process.
        world_size: Number of processes.

    Raises:
        UserError: A number is out of range, or training batches cannot be shared out equally.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        train: bool,
        augment: Augment | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} is not a number of images: give 1 or more.")
        if world_size < 1 or not 0 <= rank < world_size:
            raise UserError(
                f"rank={rank} is not one of world_size={world_size} processes: give 0 <= rank < world_size."
            )
        if train and batch_size % world_size:
            raise UserError(
                f"batch_size={batch_size} cannot be shared equally by world_size={world_size} processes: "
                "give a multiple of the number of processes."
            )
        if seed < 0:
            raise UserError(f"seed={seed} is negative: give 0 or more.")
        self.device = torch.device(device)
        self.split = split.on(self.device)
        self.batch_size = batch_size
        self.train = train
        self.augment = (augment or Augment()) if train else Augment()
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    @property
    def global_batch(self) -> int:
        """Images in a step of training, over all processes."""
        return min(self.batch_size, len(self.split))

    def __len__(self) -> int:
        """Return the batches in an epoch."""
        images = len(self.split)
        return max(images // self.batch_size, 1) if self.train else -(-images // self.batch_size)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's part of each global batch of an epoch.

        When the last batch is smaller than the number of processes, some of the parts are empty.

        Args:
            number: Number of the epoch, from 0.

        Yields:
            Images (B, C, H, W) float32, normalised, and labels (B,) int64, both on the device.
        """
        if number < 0:
            raise UserError(f"epoch={number} is negative: epochs are counted from 0.")
        picks = self._picks(number)
        mean, std = self._constants()
        read = self.split.read(picks, self.device, self.augment.crop_area)
        # One transfer an epoch instead of one a batch.
        every = torch.cat([draws for _, draws in picks]).to(self.device).split([len(draws) for _, draws in picks])
        for draws, (images, labels) in zip(every, read, strict=True):
            moved = self.augment.move(images, draws)
            yield self.augment.erase(normalise(moved, mean, std), draws), labels

    def _picks(self, number: int) -> list[Pick]:
        """Return rows and uniform numbers of this process's part of every batch."""
        images = len(self.split)
        if self.train:
            state = np.random.SeedSequence([self.seed, number]).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0]))
            rows = torch.randperm(images, generator=generator)
            draws = torch.rand(images, DRAWS, generator=generator)
        else:
            rows, draws = torch.arange(images), torch.zeros(1, DRAWS).expand(images, -1)
        picks = []
        for batch in range(len(self)):
            start = batch * self.batch_size
            size = min(self.batch_size, images - start)
            first = start + size * self.rank // self.world_size
            last = start + size * (self.rank + 1) // self.world_size
            picks.append((rows[first:last], draws[first:last]))
        return picks

    def _constants(self) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.split.mean or (0.0,), device=self.device)
        return mean, torch.tensor(self.split.std or (1.0,), device=self.device)
