"""Small networks whose structure is hard to read: for tests of what they see."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.ops import AddressPointwise2d, GroupedShuffleConv2d, RollingPointwise2d, ShiftedGroupedPointwise2d


class Branches(nn.Module):
    """A dilated, an asymmetric and a skipping branch, concatenated and added."""

    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(3, 4, 3, padding=4, dilation=4)
        self.tall = nn.Conv2d(3, 4, (5, 1), padding=(2, 0))
        self.mix = nn.Conv2d(8, 8, 1, groups=8)
        self.skip = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(torch.cat((self.dilated(x), self.tall(x)), 1)) + self.skip(x)


class Hourglass(nn.Module):
    """Down by pooling, up by interpolation and by a transposed convolution, with a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, 2, 1)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(6, 6, 2, 2, groups=3)
        self.out = nn.Conv2d(12, 4, 3, padding=1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        half = self.down(x)
        quarter = self.deep(F.max_pool2d(half, 2, ceil_mode=True))
        raised = F.interpolate(quarter, size=half.shape[2:], mode="bilinear")
        return self.out(torch.cat((self.up(half), self.up(raised)), 1))


class Tokens(nn.Module):
    """Convolutions whose result is rolled, flattened to tokens and mixed by a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x.roll(1, 2)).flatten(2).transpose(1, 2)
        tokens = tokens + self.linear(self.norm(tokens))
        return torch.einsum("nlc,nlc->nc", tokens, tokens.flip(1))


class Attending(nn.Module):
    """Tokens that attend to each other, normalised by groups and scaled by a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        tokens = y.flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens)
        return self.norm(mixed.transpose(1, 2).reshape(y.shape)) * y.mean()


class Transposed(nn.Module):
    """Convolutions along the channels: an axis of space takes their place."""

    def __init__(self, height: int) -> None:
        super().__init__()
        self.along_channels = nn.Conv3d(1, 1, (3, 1, 1), padding=(1, 0, 0))
        self.by_row = nn.Conv2d(height, height, 3, padding=1, groups=height)

    def forward(self, x: Tensor) -> Tensor:
        x = self.along_channels(x.unsqueeze(1)).squeeze(1)
        return x + self.by_row(x.transpose(1, 2)).transpose(1, 2)


def grouped_stack() -> nn.Module:
    """Return pointwise operators that reach only some channels, and an address shift that reads across borders."""
    return nn.Sequential(
        GroupedShuffleConv2d(16, 16, 3, padding=1, groups=4),
        RollingPointwise2d(16, 20, groups=4, overlap=0.33),
        ShiftedGroupedPointwise2d(20, 16, groups=2, stride=2),
        AddressPointwise2d(16, 16, groups=4),
    )
