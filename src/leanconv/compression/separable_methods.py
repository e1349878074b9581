"""Methods of pointwise convolutions and filters of single channels: depthwise decomposition and decoupling."""

import dataclasses
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from leanconv.compression.decoupling import decouple_pointwise_first
from leanconv.compression.depthwise import (
    compose_depthwise,
    depthwise_from_moments,
    depthwise_from_weight,
    depthwise_full_rank,
    refit_filters,
    refit_mix,
)
from leanconv.compression.least_squares import solve_normal_equations
from leanconv.compression.methods import METHODS, Fit, Method, Ranks, needs_bias, operator_like, set_bias, shape_of
from leanconv.compression.problem import Problem
from leanconv.errors import UserError
from leanconv.ops.geometry import Geometry
from leanconv.ops.separable import DepthwiseSeparableConv1d, DepthwiseSeparableConv2d, DepthwiseSeparableConv3d
from leanconv.ops.structured import Conv, geometry_of, make_conv

#: Rounds in which depthwise filters and their mix are refitted in turns.
ROUNDS = 3
#: Inputs of an output from which a planner does without the refits.
WIDE = 600


class _Separable(Method):
    """Depthwise filters and a pointwise mix."""

    def full_rank(self, conv: Conv) -> tuple[int, ...]:
        outs, _, taps = shape_of(conv)
        return (depthwise_full_rank(outs, taps),)

    def build(self, conv: Conv, rank: tuple[int, ...], *, bias: bool) -> nn.Module:
        classes = (DepthwiseSeparableConv1d, DepthwiseSeparableConv2d, DepthwiseSeparableConv3d)
        built: nn.Module = operator_like(classes, conv, bias=bias, depth_multiplier=rank[0])
        return built

    def candidates(self, conv: Conv) -> Any:
        return ((multiplier,) for multiplier in range(1, self.full_rank(conv)[0]))

    @torch.no_grad()
    def _filled(self, conv: Conv, problem: Problem, filters: Tensor, mix: Tensor) -> Fit:
        mix = problem.out_of_metric(mix.movedim(1, -1).flatten(1, 2)).unflatten(1, mix.shape[2:]).movedim(-1, 1)
        kernel = compose_depthwise(filters, mix)
        module: Any = self.build(conv, (filters.shape[2],), bias=needs_bias(conv, problem)).double()
        # Both parts get the same share of the magnitude, so that neither overflows or vanishes in a short type.
        scale = (mix.norm(dim=1) / filters.norm(dim=-1)).clamp(1e-12, 1e12).sqrt().nan_to_num(1.0)  # (g, c, m)
        module.depthwise.weight.copy_((filters * scale.unsqueeze(-1)).reshape(module.depthwise.weight.shape))
        module.pointwise.weight.copy_((mix / scale.unsqueeze(1)).reshape(module.pointwise.weight.shape))
        set_bias(module.pointwise, conv, problem, kernel)
        return Fit(module, kernel)


@METHODS.register
@dataclass(frozen=True)
class DepthwiseDecomposition(_Separable):
    """Depthwise convolution with a channel multiplier, then a pointwise one (He et al., 2019, arXiv 1910.09455).

    With data: GSVD with inter-channel compensation, refits by least squares in turns.  Without: an SVD a channel.

    Args:
        rank: Depthwise filters for each input channel; exact from ``min(taps, out_channels / groups)`` on.
        sweeps: Passes of the compensation through the channels; the paper makes one.
        rounds: Rounds in which filters and mix are refitted in turns; without any, the mix is refitted once.
    """

    rank: Ranks = None
    sweeps: int = 3
    rounds: int = ROUNDS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sweeps < 1:
            raise UserError(f"`sweeps` must be at least 1, got {self.sweeps}.")
        if self.rounds < 0:
            raise UserError(f"`rounds` must be at least 0, got {self.rounds}.")

    def draft(self, conv: Conv) -> "DepthwiseDecomposition":
        """Return a quicker form for wide layers, whose refits take most of the time and gain a few percent."""
        _, ins, taps = shape_of(conv)
        return dataclasses.replace(self, sweeps=1, rounds=0) if ins * taps > WIDE else self

    def fit(self, conv: Conv, problem: Problem, rank: tuple[int, ...]) -> Fit:
        """Fit filters and mix."""
        if problem.gram is None:
            return self._filled(conv, problem, *depthwise_from_weight(problem.weight, rank[0]))
        gram, cross = problem.gram, problem.cross
        start = problem.best.mT.unflatten(2, problem.weight.shape[2:])
        filters, mix = depthwise_from_moments(gram, cross, start, rank[0], sweeps=self.sweeps)
        mix = refit_mix(gram, cross, filters)
        for _ in range(self.rounds if rank != self.full_rank(conv) else 0):
            filters = refit_filters(gram, cross, filters, mix)
            mix = refit_mix(gram, cross, filters)
        return self._filled(conv, problem, filters, mix)


@METHODS.register
@dataclass(frozen=True)
class NetworkDecoupling(Method):
    """Sum of depthwise separable terms from the weights alone (Guo et al., 2018, arXiv 1808.05517).

    Data, where given, only keeps the mean output.

    Args:
        rank: Terms.
        order: ``"depthwise"`` first, one SVD for each input channel, or ``"pointwise"`` first, one for each output.
    """

    rank: Ranks = None
    order: Literal["depthwise", "pointwise"] = "depthwise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ("depthwise", "pointwise"):
            raise UserError(f"`order` must be 'depthwise' or 'pointwise', got {self.order!r}.")

    @property
    def _like(self) -> "DepthwiseDecomposition | Decoupled":
        return DepthwiseDecomposition(self.rank) if self.order == "depthwise" else Decoupled(self.rank)

    def full_rank(self, conv: Conv) -> tuple[int, ...]:
        """Return the number of terms that is exact."""
        return self._like.full_rank(conv)

    def build(self, conv: Conv, rank: tuple[int, ...], *, bias: bool) -> nn.Module:
        """Return the replacement."""
        return self._like.build(conv, rank, bias=bias)

    def candidates(self, conv: Conv) -> Any:
        """Yield the ranks to consider."""
        return self._like.candidates(conv)

    def fit(self, conv: Conv, problem: Problem, rank: tuple[int, ...]) -> Fit:
        """Fit the weights."""
        outside = problem.weight
        if problem.metric_inverse is not None:
            outside = torch.einsum("grck,grq->gqck", problem.weight, problem.metric_inverse)
        like = self._like
        if isinstance(like, DepthwiseDecomposition):
            filters, mix = depthwise_from_weight(outside, rank[0])
            if problem.metric_root is not None:
                mix = torch.einsum("gqcm,gqr->grcm", mix, problem.metric_root)
            return like._filled(conv, problem, filters, mix)
        return like.filled(conv, problem, *decouple_pointwise_first(outside, rank[0]))


@METHODS.register
@dataclass(frozen=True)
class Decoupled(Method):
    """Pointwise convolution, then a grouped one with a group for each output (Xie et al., 2018).

    "Decoupled convolutions", doi 10.1609/aaai.v32i1.11638, with learned kernels and ``rank`` maps for each output (our
    reading).  With data the spatial kernels of each output are refitted by least squares.

    Args:
        rank: Intermediate maps for each output; exact from ``min(in_channels / groups, taps)`` on.
    """

    rank: Ranks = None

    def full_rank(self, conv: Conv) -> tuple[int, ...]:
        """Return the number of maps that is exact."""
        _, ins, taps = shape_of(conv)
        return (min(ins, taps),)

    def candidates(self, conv: Conv) -> Any:
        """Yield the ranks to consider."""
        return ((maps,) for maps in range(1, self.full_rank(conv)[0]))

    def build(self, conv: Conv, rank: tuple[int, ...], *, bias: bool) -> nn.Module:
        """Return the two convolutions."""
        factory: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        maps = conv.out_channels * rank[0]
        point = Geometry.of(len(conv.kernel_size), 1)
        return nn.Sequential(
            OrderedDict(
                pointwise=make_conv(point, conv.in_channels, maps, groups=conv.groups, **factory),
                spatial=make_conv(
                    geometry_of(conv), maps, conv.out_channels, groups=conv.out_channels, bias=bias, **factory
                ),
            )
        )

    def fit(self, conv: Conv, problem: Problem, rank: tuple[int, ...]) -> Fit:
        """Fit every output on its own."""
        kernel = problem.out_of_metric(problem.best)  # (g, p, q)
        weight = kernel.mT.unflatten(2, problem.weight.shape[2:])
        pointwise, spatial = decouple_pointwise_first(weight, rank[0])
        if problem.gram is not None:
            spatial = _refit_spatial(problem.gram, problem.out_of_metric(problem.cross), pointwise, spatial)
        return self.filled(conv, problem, pointwise, spatial)

    @torch.no_grad()
    def filled(self, conv: Conv, problem: Problem, pointwise: Tensor, spatial: Tensor) -> Fit:
        """Return the replacement with pointwise kernels ``(g, q, r, c)`` and spatial ones ``(g, q, r, K)``."""
        kernel = torch.einsum("gqrc,gqrk->gckq", pointwise, spatial).flatten(1, 2)
        module: Any = self.build(conv, (pointwise.shape[2],), bias=needs_bias(conv, problem)).double()
        module.pointwise.weight.copy_(pointwise.reshape(module.pointwise.weight.shape))
        module.spatial.weight.copy_(spatial.reshape(module.spatial.weight.shape))
        set_bias(module.spatial, conv, problem, kernel)
        return Fit(module, kernel)


def _refit_spatial(gram: Tensor, cross: Tensor, pointwise: Tensor, spatial: Tensor) -> Tensor:
    """Return the spatial kernels of least error for given pointwise ones, output by output."""
    channels, taps = pointwise.shape[-1], spatial.shape[-1]
    columns = gram.unflatten(1, (channels, taps)).unflatten(3, (channels, taps))  # (g, c, K, d, L)
    right = torch.einsum("gckq,gqrc->gqrk", cross.unflatten(1, (channels, taps)), pointwise)
    refitted = []
    for output in range(pointwise.shape[1]):
        kernels = pointwise[:, output]  # (g, r, c)
        half = torch.einsum("gckdl,gsd->gckls", columns, kernels)
        own = torch.einsum("gckls,grc->grksl", half, kernels).flatten(3).flatten(1, 2)
        solved = solve_normal_equations(own, right[:, output].flatten(1).unsqueeze(-1))
        refitted.append(solved.view_as(spatial[:, output]))
    return torch.stack(refitted, 1)
