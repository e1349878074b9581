"""Operators as their authors write them: the truth for tests, and what benchmarks measure against.

Written from the published descriptions, with the copies and the extra axis that the package avoids.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.ops import DiCE


def same_padding(size: int, taps: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME", as its documentation defines it."""
    total = max((-(-size // stride) - 1) * stride + taps - size, 0)
    return total // 2, total - total // 2


class ChannelwiseConv3d(nn.Module):
    """Channel-wise convolution of ChannelNets: a 3-D convolution over an image with its channels as an axis."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        kernels, taps = self.weight.shape
        low, high = same_padding(x.shape[1], taps, kernels)
        volume = x.unsqueeze(1)
        if low != high:
            volume, low = F.pad(volume, (0, 0, 0, 0, low, high)), 0
        y = F.conv3d(volume, self.weight.view(kernels, 1, taps, 1, 1), stride=(kernels, 1, 1), padding=(low, 0, 0))
        return y.reshape(x.shape)


def _norm_act(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))


class AuthorsDiCE(nn.Module):
    """DiCE unit of sacmehta/EdgeNets: transposed copies, concatenation, shuffle, grouped pointwise convolution."""

    def __init__(self, in_channels: int, out_channels: int, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.conv_channel = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.conv_width = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.conv_height = nn.Conv2d(height, height, 3, padding=1, groups=height, bias=False)
        self.br_act = _norm_act(3 * in_channels)
        self.weight_avg_layer = nn.Sequential(
            nn.Conv2d(3 * in_channels, in_channels, 1, groups=in_channels, bias=False), *_norm_act(in_channels)
        )
        groups = math.gcd(in_channels, out_channels)
        self.proj_layer = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, groups=groups, bias=False), *_norm_act(out_channels)
        )
        self.linear_comb_layer = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, in_channels // 4, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(in_channels // 4, out_channels, 1, bias=False),
            nn.Sigmoid(),
        )

    @staticmethod
    def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(x.shape[2:]) == size:
            return x
        if x.shape[2] < size[0] or x.shape[3] < size[1]:
            return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
        return F.adaptive_avg_pool2d(x, size)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        depth = self.conv_channel(x)
        rows = self.resized(x.clone(), (self.height, width))
        rows = self.conv_height(rows.transpose(1, 2).contiguous()).transpose(1, 2).contiguous()
        columns = self.resized(x.clone(), (height, self.width))
        columns = self.conv_width(columns.transpose(1, 3).contiguous()).transpose(1, 3).contiguous()
        three = [depth, self.resized(rows, (height, width)), self.resized(columns, (height, width))]
        y = self.br_act(torch.cat(three, 1))
        y = y.view(batch, 3, channels, height, width).transpose(1, 2).contiguous().view(batch, -1, height, width)
        y = self.weight_avg_layer(y)
        return self.proj_layer(y) * self.linear_comb_layer(y)


def authors_weights(ours: DiCE) -> dict[str, Tensor]:
    """The weights of a unit under the names of the authors' code, branches joined."""
    conv, fuse = ours.dim_conv, ours.dim_fuse
    weights = {
        "conv_channel.weight": conv.depth.weight,
        "conv_height.weight": conv.height_weight,
        "conv_width.weight": conv.width_weight,
        "weight_avg_layer.0.weight": fuse.local_weight.view(-1, 3, 1, 1),
        "linear_comb_layer.1.weight": fuse.squeeze.weight[..., None, None],
        "linear_comb_layer.3.weight": fuse.excite.weight[..., None, None],
    }
    branches = [norm.state_dict() for norm in conv.norms]
    for key, value in branches[0].items():
        joined = value if value.dim() == 0 else torch.cat([branch[key] for branch in branches])
        weights[f"br_act.{key}"] = joined
    for key, value in fuse.local_norm.state_dict().items():
        weights[f"weight_avg_layer.{int(key[0]) + 1}{key[1:]}"] = value
    for key, value in fuse.project.state_dict().items():
        weights[f"proj_layer.{key}"] = value
    return weights
