"""Decoupled convolution: a convolution written as maps across channels, then their aggregation over places.

Xie et al., AAAI 2018, *Decoupled Convolutions for CNNs* (doi 10.1609/aaai.v32i1.11638), and the first author's public
code.  A pointwise convolution computes one map for every tap and output; the output sums each map shifted by its tap.
This is exact.  The journal version (TNNLS 30(11), 2019) makes the configuration of taps adaptive by a ReLU on the maps
of all taps but the centre one.

Cost: the MACs and parameters of the dense convolution at stride 1 (at a stride the maps are still computed at every
input sample), and ``prod(kernel_size)`` maps kept at a time.
"""

import itertools
import math
from functools import reduce
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leanconv.errors import UserError
from leanconv.ops.geometry import Geometry, Padding, PaddingMode, Size, check_groups
from leanconv.ops.structured import OPERATORS, Conv, StructuredConv, geometry_of, make_conv


class DecoupledConv(StructuredConv):
    """Maps across channels, one for each tap and output, and their sum over the taps; use the 1-D, 2-D or 3-D form.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel_size: Taps an axis.
        stride: Step an axis.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance an axis.
        groups: As in ``torch.nn.Conv2d``.
        bias: Whether to add a bias.  It is added after the sum: shared out among the maps, as in the authors' code,
            it would come short where the taps see padding.
        padding_mode: As in ``torch.nn.Conv2d``.
        negative_slope: Of a leaky ReLU on the maps of all taps but the centre one (the adaptive configuration).  At
            1.0 the operator is linear and the plain convolution; otherwise it has no ``dense()``.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1},
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "bias": False},
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
        negative_slope: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        self.geometry = Geometry.of(self.dims, kernel_size, stride, padding, dilation, padding_mode)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.negative_slope = negative_slope
        maps = math.prod(self.geometry.kernel_size) * out_channels
        # Of each group, all outputs of the first tap, then all of the second, …: position-major, as in the paper.
        self.across = make_conv(Geometry.of(self.dims, 1), in_channels, maps, groups=groups, device=device, dtype=dtype)
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the authors' code: normal, with the fan-in of the whole convolution (He et al., 2015)."""
        fan_in = self.across.weight[0].numel() * math.prod(self.geometry.kernel_size)
        nn.init.normal_(self.across.weight, std=math.sqrt(2 / fan_in))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute all maps, then add up what each tap sees of its map."""
        geometry = self.geometry
        maps = _padded(self.across(x), geometry)
        sizes = [
            (size - extent) // step + 1
            for size, extent, step in zip(maps.shape[-self.dims :], geometry.extent, geometry.stride, strict=True)
        ]
        if min(sizes) < 1:
            shape = tuple(maps.shape[-self.dims :])
            raise UserError(f"`x` with its padding must cover the kernel, {geometry.extent} samples, got {shape}.")
        maps = maps.unflatten(-1 - self.dims, (self.groups, math.prod(geometry.kernel_size), -1))
        parts = []
        for tap, place in enumerate(itertools.product(*map(range, geometry.kernel_size))):
            first = [index * apart for index, apart in zip(place, geometry.dilation, strict=True)]
            window = (
                slice(start, start + (size - 1) * step + 1, step)
                for start, size, step in zip(first, sizes, geometry.stride, strict=True)
            )
            seen = maps[(..., tap, slice(None), *window)].flatten(-2 - self.dims, -1 - self.dims)
            linear = self.negative_slope == 1 or place == centre(geometry)
            parts.append(seen if linear else F.leaky_relu(seen, self.negative_slope))
        y = reduce(torch.add, parts)
        return y if self.bias is None else y + self.bias.view(-1, *[1] * self.dims)

    def dense(self) -> Conv:
        """Return the equal dense convolution; see :meth:`StructuredConv.dense`.

        Raises:
            UserError: ``negative_slope`` makes the operator nonlinear.
        """
        check_linear(self.negative_slope)
        return super().dense()

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, *, negative_slope: float = 1.0, **_: Any) -> Self:
        """Decouple a convolution, exactly.

        Args:
            conv: The convolution.
            negative_slope: As in the constructor; below 1 the result starts from the convolution's weights but no
                longer equals it.
        """
        decoupled = cls(
            conv.in_channels,
            conv.out_channels,
            **vars(geometry_of(conv)),
            groups=conv.groups,
            bias=conv.bias is not None,
            negative_slope=negative_slope,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        weight = conv.weight.flatten(2).unflatten(0, (conv.groups, -1))  # (g, outputs, inputs, taps)
        decoupled.across.weight.copy_(weight.movedim(3, 1).reshape(decoupled.across.weight.shape))
        if decoupled.bias is not None and conv.bias is not None:
            decoupled.bias.copy_(conv.bias)
        return decoupled.train(conv.training)

    def extra_repr(self) -> str:
        """Return the arguments that the printed submodules do not show."""
        return f"kernel_size={self.geometry.kernel_size}, negative_slope={self.negative_slope}"


def centre(geometry: Geometry) -> tuple[int, ...]:
    """Return the tap in the middle, of even kernels the one behind it."""
    return tuple(taps // 2 for taps in geometry.kernel_size)


def check_linear(negative_slope: float) -> None:
    """Check that a slope leaves an operator linear.

    Raises:
        UserError: It does not.
    """
    if negative_slope != 1:
        raise UserError(f"`negative_slope` must be 1 for an operator that equals a convolution, got {negative_slope}.")


def _padded(x: Tensor, geometry: Geometry) -> Tensor:
    pads = [pad for both in reversed(geometry.pads) for pad in both]
    if not any(pads):
        return x
    return F.pad(x, pads, "constant" if geometry.padding_mode == "zeros" else geometry.padding_mode)


@OPERATORS.register
class DecoupledConv1d(DecoupledConv):
    """:class:`DecoupledConv` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class DecoupledConv2d(DecoupledConv):
    """:class:`DecoupledConv` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class DecoupledConv3d(DecoupledConv):
    """:class:`DecoupledConv` for ``(N, C, D, H, W)``."""

    dims = 3
