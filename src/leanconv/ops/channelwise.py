"""Channel-wise convolution: short kernels that slide along the channels and are shared by every pixel.

Gao, Wang and Ji, 2018, "ChannelNets", arXiv 1809.01330, sections 3.2 to 3.4; padding and order of the outputs as in
its authors' code.  A *grouped* channel-wise convolution has ``g`` kernels with stride ``g``, so that it writes as many
channels as it reads; each kernel's outputs span all channels, which mixes the groups of the grouped convolution that
follows.

Cost for ``c`` channels and ``f`` taps on ``h x w`` pixels: ``g f`` parameters and ``f c h w`` MACs, against ``c²`` and
``c² h w`` of a pointwise convolution.  Written as a convolution over an image with one more axis, which has one input
and ``g`` output channels, it keeps processors waiting; here every pixel is a channel of a depthwise convolution along
the channels, which is how a contiguous image lies in memory.  Inference of one image by several kernels on a processor
takes matrix products instead: the channels below the kernels are a matrix that lies in memory as it is, wherever they
stand (on an AMD EPYC, Zen 5, 512 channels of 14x14 take 4 kernels half the time, 2 kernels four fifths; several images
or one kernel gain nothing).
"""

import math
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.geometry import Geometry, check_groups
from leanconv.ops.structured import OPERATORS, Conv, StructuredConv, geometry_of, ungrouped_weight
from leanconv.ops.windowed import infers


def channel_padding(channels: int, taps: int, stride: int) -> tuple[int, int]:
    """Return the zero channels before and after: TensorFlow's "SAME", the odd one behind."""
    total = max((math.ceil(channels / stride) - 1) * stride + taps - channels, 0)
    return total // 2, total - total // 2


def channelwise_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Slide ``g`` kernels along the channels with stride ``g``.

    With ``lo`` zero channels before the first, ``y[j c/g + t] = sum_q weight[j, q] x[t g + q - lo]``: all outputs of
    the first kernel, then all of the second, and so on.

    Args:
        x: Shape ``(N, c, *spatial)``, where ``g`` divides ``c``.
        weight: Kernels, shape ``(g, taps)``.

    Returns:
        The shape of ``x``.
    """
    kernels, taps = weight.shape
    low, high = channel_padding(x.shape[1], taps, kernels)
    if kernels > 1 and x.shape[0] == 1 and x.is_cpu and infers(x, weight):
        return _products(F.pad(x.flatten(2), (0, 0, low, high)).contiguous(), weight).reshape(x.shape)
    pixels = x.flatten(2).unsqueeze(1)  # (N, 1, c, pixels)
    if low != high:
        pixels, low = F.pad(pixels, (0, 0, low, high)), 0
    if torch.compiler.is_exporting():
        # One plain convolution, free to have any number of pixels; runtimes know no fast form of their own.
        y = F.conv2d(pixels, weight[:, None, :, None], stride=(kernels, 1), padding=(low, 0))
        return y.reshape(x.shape)
    pixels = pixels.permute(0, 3, 1, 2)
    count = pixels.shape[1]
    outputs = [
        F.conv2d(pixels, kernel.expand(count, 1, 1, taps), stride=(1, kernels), padding=(0, low), groups=count)
        for kernel in weight.unbind()
    ]
    y = torch.cat(outputs, 3) if kernels > 1 else outputs[0]
    return y.permute(0, 2, 3, 1).reshape(x.shape)


def _products(padded: Tensor, weight: Tensor) -> Tensor:
    """Return ``(g, places, pixels)`` of a padded contiguous image ``(1, channels, pixels)`` by matrix products."""
    (kernels, taps), (image,), pixels = weight.shape, padded, padded.shape[2]
    windows = ((padded.shape[1] - taps) // kernels + 1, taps, pixels)
    below = image.as_strided(windows, (kernels * pixels, pixels, 1))
    return torch.bmm(weight.expand(windows[0], -1, -1), below).transpose(0, 1)


class GroupedChannelwiseConv(StructuredConv):
    """:func:`channelwise_conv` as a module; use the 1-D, 2-D or 3-D form.

    Args:
        in_channels: Channels read and written.
        groups: Kernels, and their stride; they divide the channels.  One slides along all channels with stride 1.
        bias: Whether to add a bias for each output channel (the paper has none).
        channel_kernel_size: Taps of a kernel, at least ``groups``; four times as many by default, as in the paper.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Attributes:
        channel_groups: The argument ``groups``; the attribute of that name is the dense equivalent's.
        weight: The kernels, ``(groups, channel_kernel_size)``.

    Raises:
        UserError: ``groups`` does not divide ``in_channels``, or kernels as short as ``channel_kernel_size`` would
            leave channels unread.

    Shapes:
        ``(N, in_channels, *spatial)`` to the same.
    """

    fit_options = ("channel_groups", "channel_kernel_size")
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 8, "groups": 2},
        {"in_channels": 12, "groups": 3, "channel_kernel_size": 4},
        {"in_channels": 6, "channel_kernel_size": 4},
    )

    def __init__(
        self,
        in_channels: int,
        groups: int = 1,
        bias: bool = False,
        *,
        channel_kernel_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(groups, in_channels=in_channels)
        taps = 4 * groups if channel_kernel_size is None else channel_kernel_size
        if taps < groups:
            raise UserError(
                f"`channel_kernel_size` must be at least `groups` = {groups}, got {taps}, which would leave channels "
                f"unread; {4 * groups} would work."
            )
        self.in_channels = self.out_channels = in_channels
        self.groups, self.channel_groups, self.channel_kernel_size = 1, groups, taps
        self.geometry = Geometry.of(self.dims, 1)
        self.weight = nn.Parameter(torch.empty(groups, taps, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(in_channels, device=device, dtype=dtype)) if bias else None
        bound = taps**-0.5  # that of a torch.nn convolution with so many taps
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve along the channels."""
        y = channelwise_conv(x, self.weight)
        return y if self.bias is None else y + self.bias.view(-1, *[1] * self.dims)

    @classmethod
    @torch.no_grad()
    def from_dense(
        cls, conv: Conv, *, channel_groups: int = 1, channel_kernel_size: int | None = None, **_: Any
    ) -> Self:
        """Average the weights of ``conv`` that share a tap: the nearest such operator.

        Args:
            conv: A pointwise convolution with as many outputs as inputs.
            channel_groups: The constructor's ``groups``.
            channel_kernel_size: As in the constructor.

        Raises:
            UserError: ``conv`` is not such a convolution.
        """
        check_square(conv)
        if geometry_of(conv) != Geometry.of(cls.dims, 1):
            raise UserError(f"`conv` must be a pointwise convolution of stride 1, got {conv}.")
        fitted = cls(
            conv.in_channels,
            channel_groups,
            conv.bias is not None,
            channel_kernel_size=channel_kernel_size,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        weight = ungrouped_weight(conv).flatten(1).unflatten(0, (channel_groups, -1))  # (g, c / g, c)
        positions, taps = weight.shape[1], fitted.channel_kernel_size
        low, high = channel_padding(conv.in_channels, taps, channel_groups)
        windows = F.pad(weight, (low, high)).unfold(2, taps, channel_groups)  # (g, c / g, c / g, taps)
        inside = F.pad(weight.new_ones(conv.in_channels), (low, high)).unfold(0, taps, channel_groups).sum(0)
        own = torch.arange(positions, device=weight.device)
        fitted.weight.copy_(windows[:, own, own].sum(1) / inside.clamp(min=1))
        if conv.bias is not None and fitted.bias is not None:
            fitted.bias.copy_(conv.bias)
        return fitted.train(conv.training)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"{self.in_channels}, groups={self.channel_groups}, channel_kernel_size={self.channel_kernel_size}"


def check_square(conv: Conv) -> None:
    """Check that a convolution writes as many channels as it reads.

    Raises:
        UserError: It does not.
    """
    if conv.in_channels != conv.out_channels:
        raise UserError(
            f"`conv` must write as many channels as it reads, got {conv.in_channels} and {conv.out_channels}."
        )


@OPERATORS.register
class GroupedChannelwiseConv1d(GroupedChannelwiseConv):
    """:class:`GroupedChannelwiseConv` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class GroupedChannelwiseConv2d(GroupedChannelwiseConv):
    """:class:`GroupedChannelwiseConv` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class GroupedChannelwiseConv3d(GroupedChannelwiseConv):
    """:class:`GroupedChannelwiseConv` for ``(N, C, D, H, W)``."""

    dims = 3


CHANNELWISE: dict[int, type[GroupedChannelwiseConv]] = {
    1: GroupedChannelwiseConv1d,
    2: GroupedChannelwiseConv2d,
    3: GroupedChannelwiseConv3d,
}
