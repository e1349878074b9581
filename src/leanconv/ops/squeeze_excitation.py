"""Squeeze and excitation (SE): a bottleneck of two linear layers scores the channels.

Hu, Shen, Albanie, Sun and Wu, 2018, arXiv 1709.01507, section 3.  ANTNets (Xiong, Kim and Hedau, 2019, arXiv
1904.03775) put it on the expanded channels of an inverted residual, with a reduction that grows from input to output.

Cost for ``c`` channels and reduction ``r``: ``2 c² / r`` parameters (with biases ``c + c / r`` more) and ``2 c² / r``
MACs for an image.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.channel_attention import ChannelAttention


class SqueezeExcitation(ChannelAttention):
    """Average, linear layer, ReLU, linear layer, sigmoid, scale.

    Args:
        channels: Channels read and written.
        reduction: Ratio of ``channels`` to the width between the linear layers, rounded down, at least one channel.
        bias: Whether the linear layers have biases (SE-Net's do, our reading of ANTNet's do not).

    Raises:
        UserError: ``channels`` or ``reduction`` is below 1.

    Shapes:
        ``(N, channels, *spatial)`` to the same, for any number of spatial axes from one on.
    """

    def __init__(self, channels: int, reduction: float = 16, *, bias: bool = True) -> None:
        super().__init__(channels)
        if not reduction >= 1:
            raise UserError(f"`reduction` must be at least 1, got {reduction}; 16 would work.")
        squeezed = max(1, int(channels // reduction))
        self.fc1 = nn.Linear(channels, squeezed, bias=bias)
        self.fc2 = nn.Linear(squeezed, channels, bias=bias)

    def scores(self, averages: Tensor) -> Tensor:
        """Map ``(N, channels)`` through the bottleneck."""
        scores: Tensor = self.fc2(F.relu(self.fc1(averages)))
        return scores
