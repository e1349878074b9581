"""Patches of small and large images to train super-resolution on, gathered on the device."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from leanconv.data.pictures import Pictures
from leanconv.errors import UserError
from leanconv.imresize import imresize

#: Levels of 0 … 255 are kept in hundredths: half the memory of floats, and far below a rounded image's error.
_STEPS = 100


@dataclass(frozen=True)
class Patches:
    """How training images are cut.

    Args:
        size: Side of a patch of the large image; rounded down to a multiple of the scale where the network takes the
            small image.
        stride: Pixels from one patch to the next.
        number: Patches an epoch, drawn anew for each; 0 for every one.

    Raises:
        UserError: A number is out of range.
    """

    size: int = 31
    stride: int = 21
    number: int = 0

    def __post_init__(self) -> None:
        # Recipes bring values of any type from YAML.
        for name, least in (("size", 4), ("stride", 1), ("number", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UserError(f"patch {name}={value!r} does not work: give a whole number of at least {least}.")


class PatchBatches:
    """Pairs of patches in batches: of the image a network takes, and of the one it should return.

    Each image is cut to a multiple of the scale and made small by MATLAB's bicubic ``imresize``; a network that does
    not enlarge by itself is given the result enlarged again.  All scales are mixed.  In an epoch every patch comes
    once, in one of its eight flips and rotations (so eight of these epochs are one of a set of eight versions), in an
    order that like the flips is a pure function of the seed and the epoch.

    All images are held in memory: two bytes a pixel of what the network takes, at each scale, and one of the original.

    Args:
        pictures: The images.
        scales: Factors.
        small_input: Whether the network takes the small image.
        patches: How to cut.
        batch_size: Patches in a global batch, over all processes.
        device: Where batches are wanted; all images are moved there once.
        seed: Seed of order and flips.
        rank: Number of this process.
        world_size: Number of processes.

    Attributes:
        total: Patches there are.
        global_batch: Patches in a step.

    Raises:
        UserError: There is no image, one is smaller than a patch, or batches cannot be shared out equally.
    """

    def __init__(
        self,
        pictures: Pictures,
        scales: tuple[int, ...],
        small_input: bool,
        patches: Patches,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not len(pictures):
            raise UserError("The data has no images to train on: name a set for training, such as train291.")
        if batch_size % world_size:
            raise UserError(
                f"batch_size={batch_size} cannot be shared equally by world_size={world_size} processes: "
                "give a multiple of the number of processes."
            )
        self.device = torch.device(device)
        self.small_input, self.seed, self.rank, self.world_size = small_input, seed, rank, world_size
        self._scale = scales[0] if small_input else 1
        self._size = patches.size // self._scale
        self._stride = max(patches.stride // self._scale, 1)
        self._prepare(pictures, scales, patches.size)
        self.total = int(self._ends[-1])
        self.number = min(patches.number or self.total, self.total)
        self.batch_size = batch_size
        self.global_batch = min(batch_size, self.number)

    def __len__(self) -> int:
        """Return the batches in an epoch."""
        return max(self.number // self.batch_size, 1)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's part of each global batch of an epoch.

        Args:
            number: Number of the epoch, from 0.

        Yields:
            What the network takes and what it should return, (B, 1, H, W) float32 of 0 to 1.
        """
        state = np.random.SeedSequence([self.seed, number]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        rows = torch.randperm(self.total, generator=generator)[: self.number].to(self.device)
        versions = torch.randint(8, (self.number,), generator=generator).to(self.device)
        for batch in range(len(self)):
            start = batch * self.batch_size
            first = start + self.global_batch * self.rank // self.world_size
            last = start + self.global_batch * (self.rank + 1) // self.world_size
            yield self._gathered(rows[first:last], versions[first:last])

    def _prepare(self, pictures: Pictures, scales: tuple[int, ...], size: int) -> None:
        """Make all images small, and note where in one long row of pixels each begins."""
        inputs, targets, table = [], [], []
        begins = [0, 0]
        for name, whole in zip(pictures.names, pictures.planes, strict=True):
            if min(whole.shape) // max(scales) * max(scales) < size:
                raise UserError(
                    f"The image {name!r} of {whole.shape[1]}x{whole.shape[0]} pixels is smaller than a patch of "
                    f"{size}: leave it out, or make patches smaller."
                )
            for scale in scales:
                image = imresize(cut_to_multiple(whole, scale).float(), 1 / scale)
                if not self.small_input:
                    image = imresize(image, scale)
                down, across = ((side - self._size) // self._stride + 1 for side in image.shape)
                table.append([*begins, image.shape[1], whole.shape[1], across, down * across])
                inputs.append((image * _STEPS).round().to(torch.int16).flatten())
                begins[0] += image.numel()
            targets.append(whole.flatten())
            begins[1] += whole.numel()
        self._inputs, self._targets = (torch.cat(rows).to(self.device) for rows in (inputs, targets))
        self._table = torch.tensor(table, device=self.device)
        self._ends = self._table[:, -1].cumsum(0)

    def _gathered(self, rows: Tensor, versions: Tensor) -> tuple[Tensor, Tensor]:
        image = torch.searchsorted(self._ends, rows, right=True)
        input_begin, target_begin, input_width, target_width, across, count = self._table[image].unbind(1)
        place = rows - (self._ends[image] - count)
        top, left = place // across * self._stride, place % across * self._stride
        inputs = _windows(self._inputs, input_begin, input_width, top, left, self._size, versions)
        size, scale = self._size * self._scale, self._scale
        targets = _windows(self._targets, target_begin, target_width, top * scale, left * scale, size, versions)
        return inputs.float() / (255 * _STEPS), targets.float() / 255


def _windows(
    pixels: Tensor, begin: Tensor, width: Tensor, top: Tensor, left: Tensor, size: int, versions: Tensor
) -> Tensor:
    """Cut squares (B, 1, size, size) out of images that lie one after the other, each flipped and turned.

    Args:
        pixels: All images, one-dimensional.
        begin: (B,) where the image of each square begins.
        width: (B,) its width.
        top: (B,) row of the square.
        left: (B,) column of the square.
        size: Side of the squares.
        versions: (B,) 0 … 7: mirrored vertically, horizontally, and at the diagonal.
    """
    steps = torch.arange(size, device=pixels.device)
    turned, down, across = ((versions[:, None, None] >> bit & 1).bool() for bit in (2, 1, 0))
    rows = torch.where(turned, steps, steps[:, None])
    columns = torch.where(turned, steps[:, None], steps)
    rows = torch.where(down, size - 1 - rows, rows) + top[:, None, None]
    columns = torch.where(across, size - 1 - columns, columns) + left[:, None, None]
    return pixels[begin[:, None, None] + rows * width[:, None, None] + columns].unsqueeze(1)


class PlaneBatches:
    """Whole luma planes one by one, for an evaluation.

    Args:
        pictures: The images.
        device: Where they are wanted.
        rank: Number of this process.
        world_size: Number of processes, which share the images; with fewer images than processes each sees all, which
            leaves means as they are.
    """

    def __init__(
        self, pictures: Pictures, *, device: torch.device | str = "cpu", rank: int = 0, world_size: int = 1
    ) -> None:
        self.pictures, self.device = pictures, torch.device(device)
        shared = world_size <= len(pictures)
        self.rank, self.world_size = (rank, world_size) if shared else (0, 1)

    def __len__(self) -> int:
        """Return the images of this process."""
        return len(self.pictures.planes[self.rank :: self.world_size])

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each plane (1, 1, H, W) uint8, as input and as target: a task makes it small itself."""
        for plane in self.pictures.planes[self.rank :: self.world_size]:
            whole = plane.to(self.device)[None, None]
            yield whole, whole


def cut_to_multiple(plane: Tensor, scale: int) -> Tensor:
    """Return an image (..., H, W) without the last rows and columns that ``scale`` does not divide."""
    height, width = (side // scale * scale for side in plane.shape[-2:])
    return plane[..., :height, :width]
