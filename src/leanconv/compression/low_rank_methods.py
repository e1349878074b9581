"""Methods that put fewer channels in between: channel-wise, along the axes, and the tensor formats."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from leanconv.compression.chains import fit_chain
from leanconv.compression.channels import channels_from_moments, channels_from_weight
from leanconv.compression.methods import METHODS, Fit, Method, Ranks, needs_bias, operator_like, set_bias, shape_of
from leanconv.compression.problem import Problem
from leanconv.cp_decomposition import full_cp_rank
from leanconv.linalg import full_ranks
from leanconv.ops.axial import AxialConv1d, AxialConv2d, AxialConv3d
from leanconv.ops.cp import CPConv1d, CPConv2d, CPConv3d
from leanconv.ops.geometry import Geometry
from leanconv.ops.structured import Conv, StructuredConv, geometry_of, make_conv
from leanconv.ops.tensor_train import TensorTrainConv1d, TensorTrainConv2d, TensorTrainConv3d
from leanconv.ops.tucker import TuckerConv1d, TuckerConv2d, TuckerConv3d


@METHODS.register
@dataclass(frozen=True)
class ChannelDecomposition(Method):
    """The same convolution with fewer outputs, then a pointwise one (Zhang et al., 2015, arXiv 1505.06798).

    With data: reduced-rank regression.  Without: a truncated SVD.

    Args:
        rank: Channels in between, for each group.
    """

    pointwise: ClassVar[bool] = True
    rank: Ranks = None

    def full_rank(self, conv: Conv) -> tuple[int, ...]:
        """Return the number of channels that is exact."""
        outs, ins, taps = shape_of(conv)
        return (min(outs, ins * taps),)

    def build(self, conv: Conv, rank: tuple[int, ...], *, bias: bool) -> nn.Module:
        """Return the two convolutions."""
        factory: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        middle, groups = rank[0] * conv.groups, conv.groups
        point = Geometry.of(len(conv.kernel_size), 1)
        return nn.Sequential(
            OrderedDict(
                first=make_conv(geometry_of(conv), conv.in_channels, middle, groups=groups, **factory),
                mix=make_conv(point, middle, conv.out_channels, groups=groups, bias=bias, **factory),
            )
        )

    @torch.no_grad()
    def fit(self, conv: Conv, problem: Problem, rank: tuple[int, ...]) -> Fit:
        """Fit both kernels."""
        if problem.gram is None:
            first, mix = channels_from_weight(problem.weight, rank[0])
        else:
            first, mix = channels_from_moments(problem.gram, problem.cross, rank[0])
        mix = problem.out_of_metric(mix)
        kernel = first @ mix
        module: Any = self.build(conv, rank, bias=needs_bias(conv, problem)).double()
        module.first.weight.copy_(first.mT.reshape(module.first.weight.shape))
        module.mix.weight.copy_(mix.mT.reshape(module.mix.weight.shape))
        set_bias(module.mix, conv, problem, kernel)
        return Fit(module, kernel)


@METHODS.register
@dataclass(frozen=True)
class SpatialSVD(Method):
    """One convolution an axis: k x 1, then 1 x k (Jaderberg et al., 2014, arXiv 1405.3866).

    Args:
        rank: Channels between two axes, for each group.
    """

    rank: Ranks = None

    def refusal(self, conv: Conv) -> str | None:
        """Return why it cannot replace ``conv``: there must be two axes with several taps."""
        if sum(taps > 1 for taps in conv.kernel_size) < 2:
            return "it has not two axes with several taps"
        return None

    def full_rank(self, conv: Conv) -> tuple[int, ...]:
        """Return the number of channels between each two axes that is exact."""
        outs, ins, _ = shape_of(conv)
        *others, last = conv.kernel_size
        return full_ranks((ins * others[0], *others[1:], last * outs))

    def build(self, conv: Conv, rank: tuple[int, ...], *, bias: bool) -> nn.Module:
        """Return the axial convolution."""
        middle = tuple(each * conv.groups for each in rank)
        built: nn.Module = operator_like((AxialConv1d, AxialConv2d, AxialConv3d), conv, bias=bias, mid_channels=middle)
        return built

    def fit(self, conv: Conv, problem: Problem, rank: tuple[int, ...]) -> Fit:
        """Fit the chain."""
        cls = (AxialConv1d, AxialConv2d, AxialConv3d)[len(conv.kernel_size) - 1]
        middle = tuple(each * conv.groups for each in rank)
        return fit_chain(conv, problem, lambda dense: cls.from_dense(dense, mid_channels=middle))


class _Format(Method):
    """A tensor format with an operator of its own."""

    classes: ClassVar[tuple[type[StructuredConv], ...]]

    def _options(self, rank: tuple[int, ...]) -> dict[str, Any]:
        return {"rank": rank if len(rank) > 1 else rank[0]}

    def build(self, conv: Conv, rank: tuple[int, ...], *, bias: bool) -> nn.Module:
        built: nn.Module = operator_like(self.classes, conv, bias=bias, **self._options(rank))
        return built

    def fit(self, conv: Conv, problem: Problem, rank: tuple[int, ...]) -> Fit:
        cls = self.classes[len(conv.kernel_size) - 1]
        return fit_chain(conv, problem, lambda dense: cls.from_dense(dense, **self._options(rank)))


@METHODS.register
@dataclass(frozen=True)
class Tucker(_Format):
    """Pointwise, a small dense convolution, pointwise (Tucker-2: Kim et al., 2016, arXiv 1511.06530).

    Args:
        ranks: Rank of the inputs and of the outputs of a group: one number for both, or one each.
    """

    classes: ClassVar[tuple[type[StructuredConv], ...]] = (TuckerConv1d, TuckerConv2d, TuckerConv3d)
    ranks: Ranks = None

    def full_rank(self, conv: Conv) -> tuple[int, ...]:
        """Return the sizes of the two modes."""
        outs, ins, taps = shape_of(conv)
        return (min(ins, outs * taps), min(outs, ins * taps))


@METHODS.register
@dataclass(frozen=True)
class CP(_Format):
    """Pointwise, one depthwise convolution an axis, pointwise (Lebedev et al., 2015, arXiv 1412.6553).

    Args:
        rank: Rank-one terms of a group.
        seed: Of the random starts.
    """

    classes: ClassVar[tuple[type[StructuredConv], ...]] = (CPConv1d, CPConv2d, CPConv3d)
    rank: Ranks = None
    seed: int = 0

    def full_rank(self, conv: Conv) -> tuple[int, ...]:
        """Return a rank that is exact for every kernel."""
        outs, ins, _ = shape_of(conv)
        return (full_cp_rank((outs, ins, *conv.kernel_size)),)

    def fit(self, conv: Conv, problem: Problem, rank: tuple[int, ...]) -> Fit:
        """Fit the chain."""
        cls = self.classes[len(conv.kernel_size) - 1]
        return fit_chain(conv, problem, lambda dense: cls.from_dense(dense, rank=rank[0], seed=self.seed))


@METHODS.register
@dataclass(frozen=True)
class TensorTrain(_Format):
    """Pointwise, one full convolution an axis, pointwise (Oseledets, 2011; Kossaifi et al., 2020, arXiv 1906.06196).

    Args:
        ranks: Channels between the factors of a group: one number, or one for each of the ``dims + 1`` gaps.
    """

    classes: ClassVar[tuple[type[StructuredConv], ...]] = (TensorTrainConv1d, TensorTrainConv2d, TensorTrainConv3d)
    ranks: Ranks = None

    def full_rank(self, conv: Conv) -> tuple[int, ...]:
        """Return the ranks that are exact."""
        outs, ins, _ = shape_of(conv)
        return full_ranks((ins, *conv.kernel_size, outs))
