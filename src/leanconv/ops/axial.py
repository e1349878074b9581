"""Axial convolution: one 1-D convolution an axis, with or without a residual around each.

Residual axial networks (Shahadat and Maida, 2023, arXiv 2301.04631) replace each 2-D convolution by a depthwise
convolution along the height and one along the width, each inside its own identity residual; the first version of
that paper uses full instead of depthwise 1-D convolutions.  Without residuals and with a free number of channels
between the axes, the same operator is the spatial (separable) SVD of a convolution.

Cost on an output of ``h x w`` with kernel ``k``: depthwise ``2 k d h w`` MACs and ``2 k d`` parameters, full
``2 k d² h w`` and ``2 k d²``, against ``k² d² h w`` and ``k² d²`` for the dense convolution.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.linalg import full_ranks, tensor_train
from leanconv.ops.geometry import Geometry, Padding, PaddingMode, Size, check_groups, to_tuple
from leanconv.ops.kernels import apply_conv_norm
from leanconv.ops.structured import OPERATORS, Conv, StructuredConv, geometry_of, make_conv


class AxialConv(StructuredConv):
    """One 1-D convolution an axis, first axis first; use the 1-D, 2-D or 3-D form.

    Axis ``a`` computes ``u + norm(conv_a(u))`` with ``residual``, else ``norm(conv_a(u))``.  With a stride the
    residual takes the input samples the convolution is centred on, so the whole operator stays linear.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel_size: Taps an axis.
        stride: Step an axis.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance an axis.
        groups: Groups of every 1-D convolution; ``groups=in_channels`` is the depthwise form.
        bias: Whether the last convolution adds a bias.  One before it would differ at zero-padded borders
            from any dense convolution, so there is none.
        padding_mode: As in ``torch.nn.Conv2d``.
        mid_channels: Channels between the axes (one number, or one for each of the ``dims - 1`` gaps); a
            multiple of ``groups``, ``out_channels`` by default.  Per group this is the rank of the factorisation.
        residual: Whether each axis adds its input.  Needs ``in_channels == mid_channels == out_channels`` and
            padding that keeps outputs centred (``"same"`` with odd kernels).
        norm_layer: Called with the channel count after each 1-D convolution, inside its residual, as in the
            residual axial block (our reading of the paper); an operator with it is not linear while training and
            has no ``dense()``.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Raises:
        UserError: An argument is out of range or a residual cannot be added.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    fit_options = ("mid_channels", "residual")
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "in_channels": 4,
            "out_channels": 4,
            "kernel_size": 3,
            "padding": "same",
            "groups": 4,
            "residual": True,
        },
        {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": "same", "residual": True},
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 2, "bias": True},
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
        mid_channels: Size | None = None,
        residual: bool = False,
        norm_layer: Callable[[int], nn.Module] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.geometry = Geometry.of(self.dims, kernel_size, stride, padding, dilation, padding_mode)
        self.in_channels, self.out_channels, self.groups, self.residual = (
            in_channels,
            out_channels,
            groups,
            residual,
        )
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        middle = to_tuple(out_channels if mid_channels is None else mid_channels, self.dims - 1, "mid_channels")
        self.mid_channels = middle
        widths = (in_channels, *middle, out_channels)
        for width in middle:
            check_groups(groups, mid_channels=width)
        if residual and len(set(widths)) > 1:
            raise UserError(
                f"`residual=True` needs equal channels before and after every axis, got {widths}; "
                f"`out_channels={in_channels}` would work."
            )
        if residual and not self.geometry.centred:
            raise UserError(
                f"`residual=True` needs an odd `kernel_size` and `padding='same'`, got `kernel_size` "
                f"{self.geometry.kernel_size} and `padding` {self.geometry.padding}."
            )
        self.convs = nn.ModuleList(
            make_conv(
                self.geometry.on_axis(axis),
                before,
                after,
                groups=groups,
                bias=bias and axis == self.dims - 1,
                device=device,
                dtype=dtype,
            )
            for axis, (before, after) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(norm_layer(width) if norm_layer else nn.Identity() for width in widths[1:])
        self.has_norm = norm_layer is not None

    def forward(self, x: Tensor, activation: nn.Module | None = None) -> Tensor:
        """Apply the 1-D convolutions in the order of the axes, and the activation, fused in training where it can be.

        Args:
            x: Images.
            activation: Of the result; None for none.
        """
        for axis, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            step, last = self.geometry.stride[axis], activation if axis == self.dims - 1 else None
            if self.residual and step > 1:
                x = every(x, step, 2 + axis) + norm(conv(x))
                x = x if last is None else last(x)
            else:
                x = apply_conv_norm(x, conv, norm, last, residual=self.residual)
        return x

    def convolutions(self) -> list[Conv]:
        """Return the 1-D convolutions in the order they are applied."""
        return [conv for conv in self.convs if isinstance(conv, Conv)]

    def dense(self) -> Conv:
        """Return the equal dense convolution; see :meth:`StructuredConv.dense`.

        Raises:
            UserError: The operator holds norm layers.
        """
        if self.has_norm:
            raise UserError("`norm_layer`: an axial convolution with norms inside equals no single convolution.")
        return super().dense()

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, *, mid_channels: Size | None = None, residual: bool = False, **_: Any) -> Self:
        """Fit by a tensor-train SVD over the axes: the best fit in 2-D, quasi-optimal in 3-D.

        Exact where ``mid_channels / groups`` reaches the rank of the unfolding between the axes, at most
        ``min(in k_1, out k_2 … k_d) / groups``.  Singular values are shared evenly between the factors.

        Args:
            conv: The convolution to fit.
            mid_channels: As in the constructor; by default the smallest number that is exact.
            residual: Whether to fit the form with residuals (subtracts the identity each axis adds).
        """
        geometry, groups = geometry_of(conv), conv.groups
        weight = conv.weight.unflatten(0, (groups, -1)).movedim(1, -1).flatten(1, 2)  # (g, i k_1, k_2, …, k_d, o)
        weight = weight.flatten(-2)  # the last mode is k_d o
        if mid_channels is None and not residual:
            mid_channels = tuple(rank * groups for rank in full_ranks(weight.shape[1:]))
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
            mid_channels=mid_channels,
            residual=residual,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        ranks = [middle // groups for middle in fitted.mid_channels]
        factors = tensor_train(weight, ranks)
        for axis, (convolution, factor) in enumerate(zip(fitted.convolutions(), factors, strict=True)):
            taps, outs = geometry.kernel_size[axis], convolution.out_channels // groups
            factor = factor.reshape(groups, -1, taps, outs).movedim(-1, 1)  # (g, out, in, k)
            if residual:
                centre = geometry.kernel_size[axis] // 2
                factor[..., centre] -= torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device)
            convolution.weight.copy_(factor.flatten(0, 1).reshape(convolution.weight.shape))
            if convolution.bias is not None and conv.bias is not None:
                convolution.bias.copy_(conv.bias)
        return fitted.train(conv.training)

    def extra_repr(self) -> str:
        """Return the arguments that the printed submodules do not show."""
        return f"residual={self.residual}"


def every(x: Tensor, step: int, axis: int) -> Tensor:
    """Return a view of every ``step``-th sample along ``axis``."""
    return x if step == 1 else x.movedim(axis, -1)[..., ::step].movedim(-1, axis)


@OPERATORS.register
class AxialConv1d(AxialConv):
    """:class:`AxialConv` over one axis: a 1-D convolution, with or without a residual."""

    dims = 1


@OPERATORS.register
class AxialConv2d(AxialConv):
    """:class:`AxialConv` over height, then width."""

    dims = 2


@OPERATORS.register
class AxialConv3d(AxialConv):
    """:class:`AxialConv` over depth, then height, then width."""

    dims = 3
