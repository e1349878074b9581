"""Convolutional classification layer: pooling and the linear classifier in one short kernel along the channels.

Gao, Wang and Ji, 2018, "ChannelNets", arXiv 1809.01330, section 3.5.  Class ``j`` of ``n`` reads the ``m - n + 1``
channels from ``j`` on, so that neighbouring classes share nearly all of what they read, and the order of the classes
matters; there must be at least as many channels as classes.  The form whose weights are not shared by the classes is
from the extended version of the paper, where it was better and depended less on the order.

Cost on a final map of ``s`` pixels: shared ``s (m - n + 1)`` parameters and ``s (m - n + 1) n`` MACs; not shared
``(m - n + 1) n`` of both, against ``m n`` of a linear layer.
"""

import math
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.geometry import Size, to_tuple

POOL: dict[int, Callable[[Tensor, Any], Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


class ChannelwiseClassifier(nn.Module):
    """One kernel over the whole map and ``m - n + 1`` channels slides along the channels.

    Args:
        in_channels: Channels ``m`` of the last stage.
        num_classes: Outputs ``n``, at most as many.
        kernel_size: Height and width of the final map (7 for images of 224 pixels); one number means a square, and
            the length of a tuple says how many spatial axes there are.  Other maps are pooled to this size first.

    Raises:
        UserError: There are more classes than channels, or a value is below 1.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, num_classes)``.
    """

    def __init__(self, in_channels: int, num_classes: int, kernel_size: Size = 7) -> None:
        super().__init__()
        dims = 2 if isinstance(kernel_size, int) else len(kernel_size)
        if dims not in POOL:
            raise UserError(f"`kernel_size` must have 1 to 3 axes, got {kernel_size!r}; (7, 7) would work.")
        self.kernel_size = to_tuple(kernel_size, dims, "kernel_size")
        # The pixels of the map are the input channels of a convolution along its channels, as they lie in memory.
        self.conv = nn.Conv2d(math.prod(self.kernel_size), 1, (1, _taps(in_channels, num_classes)), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Score the classes."""
        if x.shape[2:] != self.kernel_size:
            x = POOL[len(self.kernel_size)](x, self.kernel_size)
        scores: Tensor = self.conv(x.flatten(2).unsqueeze(1).permute(0, 3, 1, 2)).flatten(1)
        return scores


class UnsharedChannelwiseClassifier(nn.Module):
    """Global average pooling; then each class weighs its own ``m - n + 1`` channels with its own weights.

    Args:
        in_channels: Channels ``m`` of the last stage.
        num_classes: Outputs ``n``, at most as many.

    Raises:
        UserError: There are more classes than channels, or a value is below 1.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, num_classes)``, for any number of spatial axes from one on.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        taps = _taps(in_channels, num_classes)
        self.conv = nn.Conv1d(num_classes, num_classes, taps, groups=num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Score the classes."""
        (taps,) = self.conv.kernel_size
        scores: Tensor = self.conv(x.flatten(2).mean(2).unfold(1, taps, 1)).squeeze(2)
        return scores


def _taps(in_channels: int, num_classes: int) -> int:
    """Return the channels a class reads, or say why there are none."""
    if num_classes < 1:
        raise UserError(f"`num_classes` must be at least 1, got {num_classes}.")
    if num_classes > in_channels:
        raise UserError(
            f"`num_classes` must not exceed `in_channels` = {in_channels} of a channel-wise classifier, got "
            f"{num_classes}; up to {in_channels} would work."
        )
    return in_channels - num_classes + 1
