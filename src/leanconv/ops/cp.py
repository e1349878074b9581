"""Convolution with its kernel as a sum of rank-one terms (CP): pointwise, one depthwise an axis, pointwise.

Kossaifi et al., CVPR 2020 (arXiv 1906.06196), there HO-CPConv; in 2-D also Lebedev et al., 2015 (arXiv 1412.6553).  The
kernel of a group is ``W[t, c, k_1, …, k_N] = sum_r U[t, r] V[c, r] prod_i U_i[k_i, r]``.

Cost for each output sample, stride 1 and one group: ``R (C + T + sum_i k_i)`` MACs and parameters: it grows with the
sum of the kernel's sizes instead of their product.  :meth:`~leanconv.ops.factorized.FactorizedConv.folded` makes one
depthwise convolution of those along the axes where that is faster.
"""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from leanconv.cp_decomposition import cp_decomposition, full_cp_rank, term_norms
from leanconv.ops.factorized import FactorizedConv, count_above
from leanconv.ops.geometry import Geometry, Size, to_tuple
from leanconv.ops.structured import OPERATORS, Conv, make_conv


class CPConv(FactorizedConv):
    """Pointwise convolution, one depthwise convolution an axis, pointwise convolution; use the 1-D, 2-D or 3-D form.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel_size: Taps an axis.
        stride: Step an axis.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance an axis.
        groups: Groups, each a sum of rank-one terms of its own.
        bias: Whether the last convolution adds a bias.
        padding_mode: As in ``torch.nn.Conv2d``.
        rank: Terms of a group.  A rank at which any kernel is exact, the product of all modes (inputs and outputs of a
            group, kernel) but the longest, is the most; ranks above are clamped to it.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    rank: int
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "rank": 2},
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "rank": 2, "bias": False},
    )

    def _clamped(self, rank: Size) -> int:
        (wanted,) = to_tuple(rank, 1, "rank")
        return min(wanted, full_cp_rank(self._shape))

    def _links(self, bias: bool, **factory: Any) -> list[nn.Module]:
        point, width = Geometry.of(self.dims, 1), self.rank * self.groups
        axes = [
            make_conv(self.geometry.on_axis(axis), width, width, groups=width, **factory) for axis in range(self.dims)
        ]
        return [
            make_conv(point, self.in_channels, width, groups=self.groups, **factory),
            *axes,
            make_conv(point, width, self.out_channels, groups=self.groups, bias=bias, **factory),
        ]

    def _fit(self, weight: Tensor, *, seed: int = 0, **_: Any) -> None:
        outs, ins, *axes = cp_decomposition(weight, self.rank, seed=seed)  # (g, mode, rank)
        factors = (*(factor.mT for factor in (ins, *axes)), outs)
        for conv, factor in zip(self.convolutions(), factors, strict=True):
            conv.weight.copy_(factor.reshape(conv.weight.shape))

    def component_norms(self) -> list[Tensor]:
        """Return the norm of every rank-one term."""
        *inner, last = (conv.weight.flatten(1).unflatten(0, (self.groups, -1)) for conv in self.convolutions())
        return [term_norms([*(factor.mT for factor in inner), last])]

    def _pruned(self, threshold: float) -> Self:
        (norms,) = self.component_norms()
        count = count_above(norms, threshold)
        strongest = norms.topk(count, dim=1).indices.sort(dim=1).values  # (g, count)
        kept = (strongest + self.rank * torch.arange(self.groups).to(strongest).unsqueeze(1)).flatten()
        *inner, last = self.convolutions()
        pruned = type(self)(
            self.in_channels,
            self.out_channels,
            **vars(self.geometry),
            groups=self.groups,
            bias=last.bias is not None,
            rank=count,
            device=last.weight.device,
            dtype=last.weight.dtype,
        )
        *smaller, smaller_last = pruned.convolutions()
        for old, new in zip(inner, smaller, strict=True):
            new.weight.copy_(old.weight[kept])
        outs = last.weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)[kept]  # (g count, outputs, …)
        smaller_last.weight.copy_(outs.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1))
        if smaller_last.bias is not None and last.bias is not None:
            smaller_last.bias.copy_(last.bias)
        return pruned

    def _rank_with_axis(self) -> int:
        return self.rank

    def _axis_conv(self, axis: int) -> Conv:
        return self.convolutions()[1 + axis]


@OPERATORS.register
class CPConv1d(CPConv):
    """:class:`CPConv` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class CPConv2d(CPConv):
    """:class:`CPConv` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class CPConv3d(CPConv):
    """:class:`CPConv` for ``(N, C, D, H, W)``."""

    dims = 3
