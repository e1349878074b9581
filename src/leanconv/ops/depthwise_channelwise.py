"""Depthwise separable channel-wise convolution: a depthwise convolution, then one kernel along the channels.

Gao, Wang and Ji, 2018, "ChannelNets", arXiv 1809.01330, section 3.3.  A pointwise convolution, which makes up most of
a depthwise separable convolution, gives way to a single kernel that slides along the channels; see
:mod:`leanconv.ops.channelwise`.

Cost for ``c`` channels, kernel ``k`` and ``f`` taps along the channels on an output of ``h x w``: ``k² c + f``
parameters and ``(k² + f) c h w`` MACs, against ``k² c + c²`` and ``(k² + c) c h w``.
"""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from leanconv.ops.channelwise import CHANNELWISE, channel_padding, check_square
from leanconv.ops.geometry import Geometry, Padding, PaddingMode, Size, check_groups
from leanconv.ops.structured import OPERATORS, Conv, StructuredConv, geometry_of, make_conv, ungrouped_weight

#: Alternations of the fit; what can be expressed is found without any.
SWEEPS = 20


class DepthwiseChannelwiseConv(StructuredConv):
    """Depthwise convolution, then one kernel of stride 1 along the channels; use the 1-D, 2-D or 3-D form.

    Args:
        in_channels: Channels read and written.
        kernel_size: Taps of the depthwise part, an axis.
        stride: Step of the depthwise part.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance.
        bias: Whether to add a bias for each output channel.
        padding_mode: As in ``torch.nn.Conv2d``.
        channel_kernel_size: Taps along the channels.  Where they are even, as in the paper, the output is half a
            channel ahead: 31 zero channels before the first and 32 behind the last.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, in_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    fit_options = ("channel_kernel_size",)
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 8, "kernel_size": 3, "padding": 1, "channel_kernel_size": 4},
        {"in_channels": 7, "kernel_size": 3, "channel_kernel_size": 3, "bias": True},
    )

    def __init__(
        self,
        in_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        bias: bool = False,
        padding_mode: PaddingMode = "zeros",
        *,
        channel_kernel_size: int = 64,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.geometry = Geometry.of(self.dims, kernel_size, stride, padding, dilation, padding_mode)
        check_groups(1, in_channels=in_channels)
        self.in_channels = self.out_channels = in_channels
        self.groups, self.channel_kernel_size = 1, channel_kernel_size
        self.depthwise = make_conv(
            self.geometry, in_channels, in_channels, groups=in_channels, device=device, dtype=dtype
        )
        self.channelwise = CHANNELWISE[self.dims](
            in_channels, bias=bias, channel_kernel_size=channel_kernel_size, device=device, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        """Filter each channel, then convolve along the channels."""
        y: Tensor = self.channelwise(self.depthwise(x))
        return y

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, *, channel_kernel_size: int = 64, **_: Any) -> Self:
        """Fit kernel and depthwise filters in turns; exact where ``conv`` is such an operator.

        The start is the best kernel for the channels that all taps read (an SVD), so that what can be expressed is
        recovered; otherwise the fit is a local optimum.

        Args:
            conv: A convolution with as many outputs as inputs.
            channel_kernel_size: As in the constructor.

        Raises:
            UserError: ``conv`` has another number of outputs than inputs.
        """
        check_square(conv)
        geometry = geometry_of(conv)
        fitted = cls(
            conv.in_channels,
            geometry.kernel_size,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            conv.bias is not None,
            geometry.padding_mode,
            channel_kernel_size=channel_kernel_size,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        weight = ungrouped_weight(conv).flatten(2).double()  # (out, in, K)
        channels, taps = conv.in_channels, channel_kernel_size
        low, _high = channel_padding(channels, taps, 1)
        read = torch.arange(channels, device=weight.device).unsqueeze(1)
        written = read + low - torch.arange(taps, device=weight.device)  # where tap q puts channel i
        inside = ((written >= 0) & (written < channels)).double()
        shared = weight[written.clamp(0, channels - 1), read] * inside.unsqueeze(2)  # (i, q, K)
        whole = inside.all(1)
        seen = shared[whole] if whole.any() else shared
        kernel = torch.linalg.svd(seen.transpose(0, 1).flatten(1), full_matrices=False).U[:, 0]
        filters = _filters(shared, kernel, inside)
        for _sweep in range(SWEEPS):
            energy = inside.T @ filters.square().sum(1)
            kernel = torch.einsum("iqk,ik->q", shared, filters) / energy.clamp(min=torch.finfo(energy.dtype).tiny)
            filters = _filters(shared, kernel, inside)
        balance = (filters.norm() / kernel.norm()).sqrt().nan_to_num(1.0)
        fitted.channelwise.weight.copy_((kernel * balance).unsqueeze(0))
        fitted.depthwise.weight.copy_((filters / balance).reshape(fitted.depthwise.weight.shape))
        if conv.bias is not None and fitted.channelwise.bias is not None:
            fitted.channelwise.bias.copy_(conv.bias)
        return fitted.train(conv.training)


def _filters(shared: Tensor, kernel: Tensor, inside: Tensor) -> Tensor:
    """Return the best depthwise filters ``(i, K)`` for a kernel along the channels, by least squares."""
    energy = (inside @ kernel.square()).clamp(min=torch.finfo(kernel.dtype).tiny)
    return torch.einsum("iqk,q->ik", shared, kernel) / energy.unsqueeze(1)


@OPERATORS.register
class DepthwiseChannelwiseConv1d(DepthwiseChannelwiseConv):
    """:class:`DepthwiseChannelwiseConv` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class DepthwiseChannelwiseConv2d(DepthwiseChannelwiseConv):
    """:class:`DepthwiseChannelwiseConv` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class DepthwiseChannelwiseConv3d(DepthwiseChannelwiseConv):
    """:class:`DepthwiseChannelwiseConv` for ``(N, C, D, H, W)``."""

    dims = 3
