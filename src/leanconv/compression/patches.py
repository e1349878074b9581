"""Sample what a convolution reads and writes at random positions of its output."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from leanconv.ops.geometry import Geometry


def sample_positions(images: int, size: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """Draw output positions for each image: all of them if there are no more than ``count``, else with replacement.

    Args:
        images: Images in the batch.
        size: Of the output, an axis.
        count: Positions for each image.
        generator: On the CPU.

    Returns:
        Row-major positions, ``(images, min(count, prod(size)))``.
    """
    total = math.prod(size)
    if total <= count:
        return torch.arange(total).expand(images, -1)
    return torch.randint(total, (images, count), generator=generator)


def outputs_at(y: Tensor, positions: Tensor) -> Tensor:
    """Return outputs ``(N, C, *spatial)`` at positions ``(N, P)``: ``(N P, C)``."""
    index = positions.to(y.device)[:, None].expand(-1, y.shape[1], -1)
    return y.flatten(2).gather(2, index).transpose(1, 2).flatten(0, 1)


def patches_at(x: Tensor, geometry: Geometry, size: tuple[int, ...], positions: Tensor) -> Tensor:
    """Return what outputs read.

    Args:
        x: Inputs, ``(N, C, *spatial)``.
        geometry: Of the convolution.
        size: Of its output, an axis.
        positions: Row-major positions in the output, ``(N, P)``.

    Returns:
        ``(N P, C, K)``, taps in the order of the kernel.
    """
    mode = "constant" if geometry.padding_mode == "zeros" else geometry.padding_mode
    pads = [samples for pair in reversed(geometry.pads) for samples in pair]
    if any(pads):
        x = F.pad(x, pads, mode=mode)
    corner = torch.unravel_index(positions, size)
    index = torch.zeros(*positions.shape, 1, dtype=torch.long)
    for axis, first in enumerate(corner):
        taps = torch.arange(geometry.kernel_size[axis]) * geometry.dilation[axis]
        along = first.unsqueeze(-1) * geometry.stride[axis] + taps  # (N, P, k)
        index = (index.unsqueeze(-1) * x.shape[2 + axis] + along.unsqueeze(-2)).flatten(2)
    images, channels = x.shape[:2]
    flat = index.to(x.device).flatten(1)[:, None].expand(-1, channels, -1)
    gathered = x.flatten(2).gather(2, flat).unflatten(2, index.shape[1:])  # (N, C, P, K)
    patches: Tensor = gathered.transpose(1, 2).reshape(images * positions.shape[1], channels, -1)
    return patches
