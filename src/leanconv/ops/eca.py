"""Efficient channel attention (ECA): a short 1-D convolution along the channels scores them.

Wang, Wu, Zhu, Li, Zuo and Hu, 2020, arXiv 1910.03151, section 3.2, and its authors' code.  Unlike squeeze and
excitation the channel averages are not squeezed into fewer numbers; a channel's score depends on its ``k - 1``
neighbours' averages and its own, with zeros beyond the first and last channel.

Cost for ``c`` channels: ``k`` parameters (``k c`` with weights that are not shared) and ``k c`` MACs for an image.
"""

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.channel_attention import ChannelAttention

#: Taps along the channels: an odd number, or ``"adaptive"`` for :func:`adaptive_kernel_size`.
ECAKernel = int | Literal["adaptive"]


def adaptive_kernel_size(channels: int, gamma: float = 2, beta: float = 1) -> int:
    """Return the odd number nearest to ``|log2(channels) / gamma + beta / gamma|`` (equation 12 of the paper).

    In the form of the authors' code: the integer part, plus one where it is even.  With the default ``gamma`` and
    ``beta`` 1 for up to 7 channels, 3 up to 127, 5 up to 2047 and 7 up to 32767.  The authors' released networks use
    other sizes, tuned by stage.

    Raises:
        UserError: ``channels`` is below 1 or ``gamma`` is zero.
    """
    if channels < 1:
        raise UserError(f"`channels` must be at least 1, got {channels}.")
    if not gamma:
        raise UserError(f"`gamma` must not be zero, got {gamma}; 2 would work.")
    whole = int(abs((math.log2(channels) + beta) / gamma))
    return whole + 1 - whole % 2


def eca_kernel_size(kernel_size: ECAKernel, channels: int) -> int:
    """Return the taps that ``kernel_size`` means for this many channels.

    Raises:
        UserError: It is neither an odd positive integer nor ``"adaptive"``.
    """
    if kernel_size == "adaptive":
        return adaptive_kernel_size(channels)
    if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        near = max(1, kernel_size + 1) if isinstance(kernel_size, int) else 3
        raise UserError(f"`kernel_size` must be an odd number or 'adaptive', got {kernel_size!r}; {near} would work.")
    return kernel_size


class ECA(ChannelAttention):
    """Efficient channel attention: one kernel slides along the channel averages.

    Args:
        channels: Channels read and written; only the adaptive kernel depends on their number.
        kernel_size: Taps along the channels, odd, or ``"adaptive"``.

    Raises:
        UserError: ``kernel_size`` is even or below 1.

    Shapes:
        ``(N, channels, *spatial)`` to the same, for any number of spatial axes from one on.
    """

    def __init__(self, channels: int, kernel_size: ECAKernel = 3) -> None:
        super().__init__(channels)
        taps = eca_kernel_size(kernel_size, channels)
        self.conv = nn.Conv1d(1, 1, taps, padding=taps // 2, bias=False)

    def scores(self, averages: Tensor) -> Tensor:
        """Convolve ``(N, channels)`` along the channels."""
        scores: Tensor = self.conv(averages.unsqueeze(1)).squeeze(1)
        return scores


class UnsharedECA(ChannelAttention):
    """The paper's ablation ECA-NS: every channel has taps of its own (section 3.2.2; "NS" is "not shared").

    Equal to :class:`ECA` where all channels hold the same taps.

    Args:
        channels: Channels read and written.
        kernel_size: Taps along the channels, odd, or ``"adaptive"``.

    Raises:
        UserError: ``kernel_size`` is even or below 1.

    Shapes:
        ``(N, channels, *spatial)`` to the same, for any number of spatial axes from one on.
    """

    def __init__(self, channels: int, kernel_size: ECAKernel = 3) -> None:
        super().__init__(channels)
        taps = eca_kernel_size(kernel_size, channels)
        self.conv = nn.Conv1d(channels, channels, taps, groups=channels, bias=False)

    def scores(self, averages: Tensor) -> Tensor:
        """Weigh each channel's neighbourhood of ``(N, channels)`` with its own taps."""
        (taps,) = self.conv.kernel_size
        neighbourhoods = F.pad(averages, (taps // 2, taps // 2)).unfold(1, taps, 1)
        scores: Tensor = self.conv(neighbourhoods).squeeze(2)
        return scores
