"""DimConv, DimFuse and the DiCE unit: convolutions along each of the three axes of an image.

Mehta, Hajishirzi and Rastegari, 2019, "DiCENet", arXiv 1906.03516, and its authors' code (sacmehta/EdgeNets).  A
depthwise convolution filters height and width with a kernel for each channel.  DimConv adds two more, over channels
and width with a kernel for each *row*, and over height and channels with a kernel for each *column*; so the unit
belongs to maps of one size, and resamples maps of any other.  DimFuse mixes the three results channel by channel,
then all channels by a 3x3 convolution and a gate.

Cost for ``c`` to ``o`` channels on ``h x w``, ``g = gcd(c, o)``: ``9 (c + h + w) + 15 c + 9 c o / g + 3 o +
(c + o) floor(c / 4)`` parameters and ``h w (30 c + 9 c o / g) + (c + o) floor(c / 4)`` MACs.

The authors transpose the image for each branch, concatenate, shuffle and convolve in ``c`` groups.  Here columns are
channels that already lie last in memory, rows are copied there once, and what the three branches give is never
concatenated but summed.  Results are equal; the parameters have the same shapes, with batch norm and slopes held by
branch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.geometry import Size, check_groups, to_tuple
from leanconv.ops.weighted_sum import weighted_sum


def conv_by_row(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve over channels and width, with a kernel for each row, centred on zeros beyond the borders.

    Args:
        x: Shape ``(N, C, H, W)``.
        weight: Shape ``(H, 1, k, k)``, taps along channels, then width; ``k`` is odd.

    Returns:
        The shape of ``x``.
    """
    rows, reach = x.transpose(1, 2), weight.shape[-1] // 2
    if torch.compiler.is_compiling():  # compilers and runtimes choose layouts themselves
        return F.conv2d(rows, weight, padding=reach, groups=x.shape[2]).transpose(1, 2)
    rows = rows.contiguous(memory_format=torch.channels_last)  # a copy in and one out, none within the convolution
    return F.conv2d(rows, weight, padding=reach, groups=x.shape[2]).transpose(1, 2).contiguous()


def conv_by_column(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve over height and channels, with a kernel for each column, centred on zeros beyond the borders.

    Args:
        x: Shape ``(N, C, H, W)``.
        weight: Shape ``(W, 1, k, k)``, taps along height, then channels; ``k`` is odd.

    Returns:
        The shape of ``x``.
    """
    columns = x.permute(0, 3, 1, 2)  # in memory an image with W channels, channels last
    y = F.conv2d(columns, weight.transpose(2, 3), padding=weight.shape[-1] // 2, groups=x.shape[3])
    return y.permute(0, 2, 3, 1)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample one axis to fit ``size``: up linearly with aligned corners, down by averaging, as the authors do."""
    if x.shape[2:] == size:
        return x
    if x.shape[2] < size[0] or x.shape[3] < size[1]:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)
    return F.adaptive_avg_pool2d(x, size)


def _norm_act(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))


class DimConv(nn.Module):
    """Depthwise convolutions over height and width, channels and width, height and channels.

    Each is followed by batch norm and a PReLU with a slope for each channel.

    Args:
        channels: Channels read and written by each branch.
        size: Height and width of the maps it is made for; they have a kernel for each row and each column.
        kernel_size: Taps along either axis, odd.

    Raises:
        UserError: A value is below 1, or ``kernel_size`` even.

    Shapes:
        ``(N, channels, H, W)`` to three of the same: along depth, height and width.  Where ``H`` or ``W`` is not the
        one of ``size``, the branch along that axis resamples it before the convolution and back after it.
    """

    def __init__(self, channels: int, size: Size, kernel_size: int = 3) -> None:
        super().__init__()
        check_groups(1, channels=channels)
        self.size = to_tuple(size, 2, "size")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(f"`kernel_size` must be odd, got {kernel_size}; {max(1, kernel_size + 1)} would work.")
        self.kernel_size = kernel_size
        self.depth = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False)
        self.height_weight, self.width_weight = (
            nn.Parameter(torch.empty(side, 1, kernel_size, kernel_size)) for side in self.size
        )
        self.norms = nn.ModuleList(_norm_act(channels) for _ in range(3))
        for weight in (self.depth.weight, self.height_weight, self.width_weight):
            nn.init.normal_(weight, std=math.sqrt(2 / (weight.shape[0] * kernel_size**2)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Filter along each axis."""
        x = x.contiguous()
        height, width = x.shape[2], x.shape[3]
        rows = conv_by_row(resized(x, (self.size[0], width)), self.height_weight)
        columns = conv_by_column(resized(x, (height, self.size[1])), self.width_weight)
        by_depth, by_height, by_width = self.norms
        return (
            by_depth(self.depth(x)),
            by_height(resized(rows, (height, width))),
            by_width(resized(columns, (height, width))),
        )

    def extra_repr(self) -> str:
        """Return the arguments that the printed submodules do not show."""
        return f"size={self.size}, kernel_size={self.kernel_size}"


class DimFuse(nn.Module):
    """Mix the three branches of :class:`DimConv` channel by channel, then all channels.

    Args:
        in_channels: Channels of each branch.
        out_channels: Channels written.  The 3x3 convolution has as many groups as divide both, so a small common
            divisor is expensive: 24 to 58 channels costs five times as much as 24 to 24.

    Raises:
        UserError: A value is below 1.

    Shapes:
        Three of ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_groups(1, in_channels=in_channels, out_channels=out_channels)
        squeezed = max(1, in_channels // 4)
        self.local_weight = nn.Parameter(torch.empty(in_channels, 3))
        self.local_norm = _norm_act(in_channels)
        project = nn.Conv2d(
            in_channels, out_channels, 3, padding=1, groups=math.gcd(in_channels, out_channels), bias=False
        )
        self.project = nn.Sequential(project, *_norm_act(out_channels))
        self.squeeze = nn.Linear(in_channels, squeezed, bias=False)
        self.excite = nn.Linear(squeezed, out_channels, bias=False)
        for weight in (self.local_weight, project.weight, self.squeeze.weight, self.excite.weight):
            nn.init.normal_(weight, std=math.sqrt(2 / (weight.shape[0] * math.prod(weight.shape[2:]))))

    def forward(self, depth: Tensor, height: Tensor, width: Tensor) -> Tensor:
        """Sum, convolve and gate."""
        y: Tensor = self.local_norm(weighted_sum((depth, height, width), self.local_weight))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3))))))
        out: Tensor = self.project(y) * gate[..., None, None]
        return out


class DiCE(nn.Module):
    """:class:`DimConv`, then :class:`DimFuse`, in the place of a convolution.

    From 30 channels on it has fewer MACs than a depthwise separable convolution.  Weights start from
    N(0, 2 / fan-out), as in the authors' code.

    Args:
        in_channels: Channels read.
        out_channels: Channels written; see :class:`DimFuse` for its price if it is another number.
        size: Height and width of the maps it is made for; it resamples others.
        kernel_size: Taps of the convolutions along the axes, odd; that of the fusion is always 3x3.

    Raises:
        UserError: A value is out of range.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``.
    """

    def __init__(self, in_channels: int, out_channels: int, size: Size, kernel_size: int = 3) -> None:
        super().__init__()
        check_groups(1, in_channels=in_channels, out_channels=out_channels)
        self.dim_conv = DimConv(in_channels, size, kernel_size)
        self.dim_fuse = DimFuse(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Filter along each axis and fuse."""
        y: Tensor = self.dim_fuse(*self.dim_conv(x))
        return y
