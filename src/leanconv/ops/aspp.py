"""Atrous spatial pyramid pooling: one map seen at several rates and as a whole.

Chen et al., 2017 (DeepLabv3, arXiv 1706.05587), section 3.3; 2018 (DeepLabv3+, arXiv 1802.02611) for the separable
form.  A 1x1 convolution, a 3x3 convolution for each rate and global average pooling, each with 256 channels, batch
norm and ReLU, are concatenated and mixed by a 1x1 convolution.

Cost from 2,048 channels on a map of 33 x 33: 15.54 M parameters and 16.34 G MACs, separable 3.01 M and 2.70 G.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.atrous import AtrousSeparableConv2d
from leanconv.ops.geometry import to_tuple


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling.

    Args:
        in_channels: Channels read.
        out_channels: Channels of each branch and of the result (256 in the paper).
        rates: Tap distance of each 3x3 branch: 6, 12, 18 on a map of 1/16 of the image's size, twice that on 1/8.
        separable: Make the 3x3 branches :class:`~leanconv.ops.atrous.AtrousSeparableConv2d`.
        inner_norm: Put batch norm and ReLU between the two parts of a separable branch, as the paper does.
        dropout: Probability of zeroing an output while training; 0 as in the paper, others take 0.1 or 0.5.

    Raises:
        UserError: A rate is below 1 or ``dropout`` is not in [0, 1).

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``.  While training, the pooling branch normalises over
        the batch alone, so that ``N`` must be at least 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        *,
        separable: bool = False,
        inner_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        rates = to_tuple(tuple(rates), len(rates), "rates")
        if not 0 <= dropout < 1:
            raise UserError(f"`dropout` must be at least 0 and below 1, got {dropout}; 0.1 would work.")

        def normed(convolution: nn.Module) -> nn.Sequential:
            return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())

        def at_rate(rate: int) -> nn.Module:
            if not separable:
                return normed(nn.Conv2d(in_channels, out_channels, 3, 1, rate, rate, bias=False))
            if inner_norm:
                return AtrousSeparableConv2d(
                    in_channels, out_channels, dilation=rate, bias=False, norm_layer=nn.BatchNorm2d
                )
            return normed(AtrousSeparableConv2d(in_channels, out_channels, dilation=rate, bias=False))

        self.branches = nn.ModuleList(
            [normed(nn.Conv2d(in_channels, out_channels, 1, bias=False)), *(at_rate(rate) for rate in rates)]
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *normed(nn.Conv2d(in_channels, out_channels, 1, bias=False)))
        self.project = normed(nn.Conv2d((len(rates) + 2) * out_channels, out_channels, 1, bias=False))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``."""
        seen = [branch(x) for branch in self.branches]
        # Bilinear interpolation of a single sample, as the paper has it, is that sample everywhere.
        whole = self.pool(x).expand(-1, -1, *x.shape[2:])
        y: Tensor = self.dropout(self.project(torch.cat([*seen, whole], 1)))
        return y
