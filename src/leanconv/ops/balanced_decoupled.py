"""Balanced decoupled spatial convolution (BDSC): a few maps across channels, aggregated by learned kernels.

Xie et al., AAAI 2018 (doi 10.1609/aaai.v32i1.11638) and TNNLS 30(11), 2019: the exact decoupling of a convolution
(:mod:`leanconv.ops.decoupled`) aggregates one map for each tap, by kernels that are zero but for that tap; learned
kernels permit fewer maps.  The block itself is not public.  Ours is the reading closest to the text and the authors'
code: each output has ``L`` maps of its own, a pointwise convolution followed by one with ``out_channels`` groups.
Where a ReLU stands in it is inferred from the adaptive configuration of the journal version.

Cost for each output sample at stride 1: ``L T (C / groups + prod(k))`` MACs and parameters, ``L (C + prod(k)) / (C
prod(k))`` of the dense convolution; ``L = 1`` is a pointwise convolution followed by a depthwise one.
"""

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from leanconv.linalg import truncated_svd
from leanconv.ops.chain import init_chain
from leanconv.ops.decoupled import centre, check_linear
from leanconv.ops.geometry import Geometry, Padding, PaddingMode, Size, check_groups, to_tuple
from leanconv.ops.structured import OPERATORS, Conv, StructuredConv, geometry_of, make_conv


class BalancedDecoupledConv(StructuredConv):
    """Pointwise convolution to a few maps for each output, then a convolution of each output's maps; use the N-d forms.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel_size: Taps an axis.
        stride: Step an axis.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance an axis.
        groups: Groups of the pointwise convolution.
        bias: Whether the second convolution adds a bias.
        padding_mode: As in ``torch.nn.Conv2d``.
        rank: Maps for each output; clamped to ``min(in_channels / groups, prod(kernel_size))``, where any convolution
            is exact.
        negative_slope: Of a leaky ReLU between the steps that the centre tap does not see.  At 1.0 the operator is
            linear; otherwise it has no ``dense()``.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    fit_options = ("rank",)
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "rank": 2},
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "rank": 1, "bias": False},
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
        rank: int = 1,
        negative_slope: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        self.geometry = Geometry.of(self.dims, kernel_size, stride, padding, dilation, padding_mode)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.negative_slope = negative_slope
        (wanted,) = to_tuple(rank, 1, "rank")
        self.rank = min(wanted, in_channels // groups, math.prod(self.geometry.kernel_size))
        maps = self.rank * out_channels
        self.across = make_conv(Geometry.of(self.dims, 1), in_channels, maps, groups=groups, device=device, dtype=dtype)
        self.aggregate = make_conv(
            self.geometry, maps, out_channels, groups=out_channels, bias=bias, device=device, dtype=dtype
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as :func:`~leanconv.ops.chain.init_chain` does, like the dense convolution."""
        fan_in = self.across.weight[0].numel() * math.prod(self.geometry.kernel_size)
        init_chain([self.across, self.aggregate], fan_in)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the maps, then aggregate those of each output."""
        maps = self.across(x)
        y: Tensor
        if self.negative_slope == 1:
            y = self.aggregate(maps)
        else:
            bent = F.leaky_relu(maps, self.negative_slope)
            y = self.aggregate(bent) + self.aggregate._conv_forward(maps - bent, self._centre_weight(), None)
        return y

    def _centre_weight(self) -> Tensor:
        """Return the aggregation kernels with all taps but the centre one zero."""
        weight: Tensor = self.aggregate.weight
        pads: list[int] = []
        for axis, (taps, middle) in enumerate(zip(self.geometry.kernel_size, centre(self.geometry), strict=True)):
            weight = weight.narrow(2 + axis, middle, 1)
            pads = [middle, taps - 1 - middle, *pads]  # the last axis comes first
        return F.pad(weight, pads)

    def dense(self) -> Conv:
        """Return the equal dense convolution; see :meth:`StructuredConv.dense`.

        Raises:
            UserError: ``negative_slope`` makes the operator nonlinear.
        """
        check_linear(self.negative_slope)
        return super().dense()

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, *, rank: int | None = None, negative_slope: float = 1.0, **_: Any) -> Self:
        """Fit by one SVD for each output, the best fit for its ``rank`` maps.

        The kernel of an output is a matrix ``prod(kernel_size) x in_channels / groups``; its right singular vectors
        become the maps, the left ones times the singular values the aggregation kernels.

        Args:
            conv: The convolution to fit.
            rank: As in the constructor; the full rank, which is exact, by default.
            negative_slope: As in the constructor; below 1 the result starts from the fit but is not linear.
        """
        fitted = cls(
            conv.in_channels,
            conv.out_channels,
            **vars(geometry_of(conv)),
            groups=conv.groups,
            bias=conv.bias is not None,
            rank=conv.weight.numel() if rank is None else rank,
            negative_slope=negative_slope,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        u, s, vh = truncated_svd(conv.weight.flatten(2).mT, fitted.rank)  # of (outputs, taps, inputs)
        fitted.across.weight.copy_(vh.reshape(fitted.across.weight.shape))
        fitted.aggregate.weight.copy_((u * s.unsqueeze(1)).mT.reshape(fitted.aggregate.weight.shape))
        if fitted.aggregate.bias is not None and conv.bias is not None:
            fitted.aggregate.bias.copy_(conv.bias)
        return fitted.train(conv.training)

    def extra_repr(self) -> str:
        """Return the arguments that the printed submodules do not show."""
        return f"rank={self.rank}, negative_slope={self.negative_slope}"


@OPERATORS.register
class BalancedDecoupledConv1d(BalancedDecoupledConv):
    """:class:`BalancedDecoupledConv` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class BalancedDecoupledConv2d(BalancedDecoupledConv):
    """:class:`BalancedDecoupledConv` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class BalancedDecoupledConv3d(BalancedDecoupledConv):
    """:class:`BalancedDecoupledConv` for ``(N, C, D, H, W)``."""

    dims = 3
