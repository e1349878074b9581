"""Convolution with its kernel as a tensor train: pointwise, one full 1-D convolution an axis, pointwise.

Kossaifi et al., CVPR 2020 (arXiv 1906.06196), with Oseledets' decomposition (2011).  The kernel of a group, its modes
in the order inputs, first axis, …, last axis, outputs, is a product of factors with ranks ``R_1, …, R_(N+1)`` between.

Cost for each output sample, stride 1 and one group: ``C R_1 + sum_i R_i k_i R_(i+1) + R_(N+1) T`` MACs and parameters.
Where ``R_1`` is the number of inputs, or ``R_(N+1)`` that of outputs, the pointwise factor there is left out: the
neighbouring one can express the product.  With both left out this is :class:`~leanconv.ops.axial.AxialConv`.
"""

from itertools import pairwise
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from leanconv.linalg import full_ranks, tensor_train
from leanconv.ops.factorized import FactorizedConv, bond_norms, bond_ranks
from leanconv.ops.geometry import Geometry, Size, to_tuple
from leanconv.ops.structured import OPERATORS, Conv, make_conv


class TensorTrainConv(FactorizedConv):
    """Pointwise convolution, one 1-D convolution an axis, pointwise convolution; use the 1-D, 2-D or 3-D form.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel_size: Taps an axis.
        stride: Step an axis.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance an axis.
        groups: Groups, each with a tensor train of its own.
        bias: Whether the last convolution adds a bias.
        padding_mode: As in ``torch.nn.Conv2d``.
        rank: Channels of a group between the factors: one number, or ``dims + 1`` of them.  Ranks above the full ones
            (:func:`~leanconv.linalg.full_ranks`) are clamped to them.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    rank: tuple[int, ...]
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "rank": 2},
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "rank": 2, "bias": False},
        {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": "same", "rank": 3},
    )

    def _clamped(self, rank: Size) -> tuple[int, ...]:
        ins, outs, *kernel = self._shape
        wanted = to_tuple(rank, self.dims + 1, "rank")
        return tuple(min(pair) for pair in zip(wanted, full_ranks((ins, *kernel, outs)), strict=True))

    @property
    def _pointwise(self) -> tuple[bool, bool]:
        """Whether there is a pointwise factor in front and one behind."""
        ins, outs, *_ = self._shape
        return self.rank[0] < ins, self.rank[-1] < outs

    @property
    def _gaps(self) -> slice:
        """The ranks with a factor on both sides."""
        front, behind = self._pointwise
        return slice(0 if front else 1, len(self.rank) if behind else len(self.rank) - 1)

    def _links(self, bias: bool, **factory: Any) -> list[nn.Module]:
        front, behind = self._pointwise
        point = Geometry.of(self.dims, 1)
        axes = [self.geometry.on_axis(axis) for axis in range(self.dims)]
        geometries = [point] * front + axes + [point] * behind
        inner = [rank * self.groups for rank in self.rank[self._gaps]]
        widths = pairwise((self.in_channels, *inner, self.out_channels))
        return [
            make_conv(geometry, *width, groups=self.groups, bias=bias and i == len(inner), **factory)
            for i, (geometry, width) in enumerate(zip(geometries, widths, strict=True))
        ]

    def _fit(self, weight: Tensor, **_: Any) -> None:
        tensor = weight.movedim(1, -1)  # (g, inputs, *kernel, outputs)
        # A missing pointwise factor is one mode with its neighbour.
        front, behind = self._pointwise
        tensor = tensor if front else tensor.flatten(1, 2)
        tensor = tensor if behind else tensor.flatten(-2)
        for conv, factor in zip(self.convolutions(), tensor_train(tensor, self.rank[self._gaps]), strict=True):
            matrix = factor.reshape(self.groups, -1, conv.out_channels // self.groups)  # (g, inputs k, outputs)
            conv.weight.copy_(matrix.mT.reshape(conv.weight.shape))

    def _factors(self) -> list[Tensor]:
        weights = (conv.weight.unflatten(0, (self.groups, -1)).flatten(3) for conv in self.convolutions())
        return [weight.permute(0, 2, 3, 1) for weight in weights]  # (g, inputs, taps, outputs)

    def component_norms(self) -> list[Tensor]:
        """Return the norm of what passes through each channel between the factors."""
        return bond_norms(self._factors())

    def _pruned(self, threshold: float) -> Self:
        rank = list(self.rank)
        rank[self._gaps] = bond_ranks(self._factors(), threshold)
        return type(self).from_dense(self.dense(), rank=tuple(rank))

    def _rank_with_axis(self) -> tuple[int, ...]:
        return (self.rank[0], *self.rank)

    def _axis_conv(self, axis: int) -> Conv:
        return self.convolutions()[axis + self._pointwise[0]]


@OPERATORS.register
class TensorTrainConv1d(TensorTrainConv):
    """:class:`TensorTrainConv` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class TensorTrainConv2d(TensorTrainConv):
    """:class:`TensorTrainConv` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class TensorTrainConv3d(TensorTrainConv):
    """:class:`TensorTrainConv` for ``(N, C, D, H, W)``."""

    dims = 3
