"""Depthwise separable convolution: a depthwise convolution, then a pointwise one.

Chollet, 2016 (Xception, arXiv 1610.02357); Howard et al., 2017 (MobileNet, arXiv 1704.04861).  With a depth
multiplier ``m`` the operator is a sum of ``m`` separable terms, and at ``m = min(prod(kernel_size), out_channels)``
it can express any dense convolution.

Cost on an output of ``h x w``: ``h w m d_in (k² + d_out / groups)`` MACs.
"""

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from leanconv.errors import UserError
from leanconv.linalg import truncated_svd
from leanconv.ops.geometry import Geometry, Padding, PaddingMode, Size, check_groups
from leanconv.ops.structured import CONV_FUNCTION, OPERATORS, Conv, StructuredConv, geometry_of, make_conv

#: Up to this many channels a CPU trains several depthwise kernels a channel faster by the dense kernel they make
#: (``benchmarks/separable_training.py``): PyTorch's convolutions with a depth multiplier are slow backwards.
COMPOSED_CHANNELS = 64


class DepthwiseSeparableConv(StructuredConv):
    """Depthwise convolution followed by a pointwise one; use the 1-D, 2-D or 3-D form.

    Nothing stands between the two, so the operator is linear; networks that put batch norm and an activation
    there compose their own blocks.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel_size: Taps of the depthwise part, an axis.
        stride: Step of the depthwise part.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance.
        groups: Groups of the pointwise part.
        bias: Whether the pointwise part adds a bias.
        padding_mode: As in ``torch.nn.Conv2d``.
        depth_multiplier: Depthwise kernels for each input channel.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    fit_options = ("depth_multiplier",)
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1},
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "depth_multiplier": 2},
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        depth_multiplier: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        if depth_multiplier < 1:
            raise UserError(f"`depth_multiplier` must be at least 1, got {depth_multiplier}.")
        self.geometry = Geometry.of(self.dims, kernel_size, stride, padding, dilation, padding_mode)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.depth_multiplier = depth_multiplier
        expanded = in_channels * depth_multiplier
        self.depthwise = make_conv(self.geometry, in_channels, expanded, groups=in_channels, device=device, dtype=dtype)
        self.pointwise = make_conv(
            Geometry.of(self.dims, 1),
            expanded,
            out_channels,
            groups=groups,
            bias=bias,
            device=device,
            dtype=dtype,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Filter each channel, then mix them; training may compose both into one convolution, which is the same."""
        if self._trains_composed(x):
            return self._composed(x)
        y: Tensor = self.pointwise(self.depthwise(x))
        return y

    def _trains_composed(self, x: Tensor) -> bool:
        return (
            self.depth_multiplier > 1
            and self.in_channels <= COMPOSED_CHANNELS
            and self.training
            and torch.is_grad_enabled()
            and x.device.type == "cpu"
            and self.geometry.padding_mode == "zeros"
        )

    def _composed(self, x: Tensor) -> Tensor:
        """Make the dense kernel, ``W[o, i] = sum_m P[o, i m] D[i m]``, and convolve by it."""
        filters = self.depthwise.weight.flatten(1).unflatten(
            0, (self.groups, -1, self.depth_multiplier)
        )  # (g, i, m, K)
        mix = self.pointwise.weight.flatten(1).unflatten(1, (-1, self.depth_multiplier))  # (g o, i, m)
        kernel = torch.einsum("goim,gimk->goik", mix.unflatten(0, (self.groups, -1)), filters).flatten(0, 1)
        kernel = kernel.unflatten(2, self.geometry.kernel_size)
        geometry = self.geometry
        return CONV_FUNCTION[self.dims](
            x, kernel, self.pointwise.bias, geometry.stride, geometry.padding, geometry.dilation, self.groups
        )

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, *, depth_multiplier: int | None = None, **_: Any) -> Self:
        """Fit by one SVD for each input channel, the best fit for its ``depth_multiplier`` terms.

        Channel ``i`` of the kernel is a matrix ``out_channels/groups x prod(kernel_size)``.  The same fit is mode
        DP of network decoupling (Guo et al., 2018, arXiv 1808.05517) and the data-free form of depth-wise
        decomposition (He et al., 2019, arXiv 1910.09455).

        Args:
            conv: The convolution to fit.
            depth_multiplier: As in the constructor, clamped to full rank; full rank (exact) by default.
        """
        geometry, groups = geometry_of(conv), conv.groups
        outs = conv.out_channels // groups
        full = min(math.prod(geometry.kernel_size), outs)
        rank = full if depth_multiplier is None else min(depth_multiplier, full)
        fitted = cls(
            conv.in_channels,
            conv.out_channels,
            geometry.kernel_size,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            groups,
            conv.bias is not None,
            geometry.padding_mode,
            depth_multiplier=rank,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        weight = conv.weight.unflatten(0, (groups, outs)).flatten(3)  # (g, o, i, K)
        u, s, vh = truncated_svd(weight.transpose(1, 2).flatten(0, 1), rank)  # a matrix (o, K) for each input
        root = s.sqrt()
        fitted.depthwise.weight.copy_((root.unsqueeze(2) * vh).reshape(fitted.depthwise.weight.shape))
        mix = (u * root.unsqueeze(1)).unflatten(0, (groups, -1))  # (g, i, o, m)
        fitted.pointwise.weight.copy_(mix.transpose(1, 2).reshape(fitted.pointwise.weight.shape))
        if conv.bias is not None and fitted.pointwise.bias is not None:
            fitted.pointwise.bias.copy_(conv.bias)
        return fitted.train(conv.training)


@OPERATORS.register
class DepthwiseSeparableConv1d(DepthwiseSeparableConv):
    """:class:`DepthwiseSeparableConv` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class DepthwiseSeparableConv2d(DepthwiseSeparableConv):
    """:class:`DepthwiseSeparableConv` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class DepthwiseSeparableConv3d(DepthwiseSeparableConv):
    """:class:`DepthwiseSeparableConv` for ``(N, C, D, H, W)``."""

    dims = 3
