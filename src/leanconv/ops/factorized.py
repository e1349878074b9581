"""What convolutions with factorised kernels share: a chain of plain convolutions whose ranks can be penalised and cut.

Kossaifi et al., CVPR 2020, *Factorized Higher-Order CNNs* (arXiv 1906.06196): the kernel of an N-d convolution is kept
as a CP, Tucker or tensor-train decomposition and applied factor by factor.  Every factor here is the weight of an
``nn.ConvNd``, so exporters, quantisers and optimisers see nothing unusual.

Ranks are chosen by a lasso: add :meth:`FactorizedConv.sparsity` to the loss, then :meth:`FactorizedConv.prune`.  The
penalty sums the norms of the parts of the kernel that pass through each rank.  That is the lasso on the weights of
*normalised* factors: it cannot be escaped by making one factor smaller and another larger.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.chain import fold_chain, init_chain
from leanconv.ops.geometry import Geometry, Padding, PaddingMode, Size, check_groups
from leanconv.ops.structured import Conv, StructuredConv, geometry_of


class FactorizedConv(StructuredConv):
    """A chain of convolutions whose product is the kernel; use the CP, Tucker or tensor-train form.

    Attributes:
        rank: Rank of each group, never above the full one.
        convs: The chain, in the order of application.
    """

    fit_options = ("rank",)
    rank: Any

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
        rank: Size,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        self.geometry = Geometry.of(self.dims, kernel_size, stride, padding, dilation, padding_mode)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.rank = self._clamped(rank)
        self.convs = nn.Sequential(*self._links(bias, device=device, dtype=dtype))
        self.reset_parameters()

    @abstractmethod
    def _clamped(self, rank: Size) -> Any:
        """Return the rank in canonical form, at most the full one."""

    @abstractmethod
    def _links(self, bias: bool, **factory: Any) -> list[nn.Module]:
        """Return the chain."""

    @abstractmethod
    def _fit(self, weight: Tensor, **options: Any) -> None:
        """Set the weights to fit a kernel ``(groups, out_channels / groups, in_channels / groups, *kernel_size)``."""

    @abstractmethod
    def _pruned(self, threshold: float) -> Self:
        """Return a smaller operator; ``threshold`` is a fraction below 1."""

    @abstractmethod
    def _rank_with_axis(self) -> Any:
        """Return the rank where one more axis joins in front, with a factor of its own."""

    @abstractmethod
    def component_norms(self) -> list[Tensor]:
        """Return the norm of the part of the kernel that each rank carries.

        Returns:
            One tensor ``(groups, rank)`` for every rank that has factors on both sides, differentiable.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Apply the factors one after the other."""
        y: Tensor = self.convs(x)
        return y

    def convolutions(self) -> list[Conv]:
        """Return the convolutions that hold the factors, in the order they are applied."""
        return [module for module in self.convs.modules() if isinstance(module, Conv)]

    @property
    def _shape(self) -> tuple[int, ...]:
        """Modes of the kernel of one group: inputs, outputs, kernel."""
        return (self.in_channels // self.groups, self.out_channels // self.groups, *self.geometry.kernel_size)

    def reset_parameters(self) -> None:
        """Initialise as :func:`~leanconv.ops.chain.init_chain` does, like the dense convolution."""
        ins, _, *kernel = self._shape
        init_chain(self.convolutions(), ins * math.prod(kernel))

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, *, rank: Size | None = None, **options: Any) -> Self:
        """Fit the decomposition to a trained convolution, in float64.

        Args:
            conv: The convolution to fit.
            rank: As in the constructor; the full rank, which is exact, by default.
            **options: ``seed`` (CP only): of the random starts, 0 by default.
        """
        fitted = cls(
            conv.in_channels,
            conv.out_channels,
            **vars(geometry_of(conv)),
            groups=conv.groups,
            bias=conv.bias is not None,
            rank=conv.weight.numel() if rank is None else rank,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        fitted._fit(conv.weight.double().unflatten(0, (conv.groups, -1)), **options)
        last = fitted.convolutions()[-1]
        if last.bias is not None and conv.bias is not None:
            last.bias.copy_(conv.bias)
        return fitted.train(conv.training)

    def sparsity(self) -> Tensor:
        """Return the lasso penalty: the sum of :meth:`component_norms`, zero if every mode is whole."""
        norms = self.component_norms()
        if not norms:
            return self.convolutions()[0].weight.new_zeros(())
        return torch.stack([norm.sum() for norm in norms]).sum()

    @torch.no_grad()
    def prune(self, threshold: float = 1e-3) -> Self:
        """Return a smaller operator without the components that carry next to nothing.

        Components are the terms of a CP decomposition, and the singular values of the kernel's unfolding at each rank
        of the others, which do not depend on the factors it is written with.  Groups keep equally many, the most any
        of them needs, and at least one.

        Args:
            threshold: Components are dropped where they are at most this fraction of the largest one.

        Raises:
            UserError: ``threshold`` is negative or not below 1.
        """
        if not 0 <= threshold < 1:
            raise UserError(f"`threshold` must be at least 0 and below 1, got {threshold}; 0.001 would work.")
        return self._pruned(threshold).train(self.training)

    def _plain(self) -> list[Conv]:
        """Return plain convolutions that, one after the other, equal the operator."""
        return self.convolutions()

    def folded(self) -> nn.Sequential:
        """Return the operator for inference: few plain convolutions, as :func:`~leanconv.ops.chain.fold_chain` merges.

        The result equals the operator and shares no memory with it.
        """
        return nn.Sequential(*fold_chain(self._plain())).train(self.training)

    def axis_conv(self, axis: int) -> Conv:
        """Return the convolution that holds the factor of one spatial axis.

        Raises:
            UserError: There is no such axis, or its mode is whole and has no factor of its own.
        """
        if not 0 <= axis < self.dims:
            raise UserError(f"`axis` must be between 0 and {self.dims - 1}, got {axis}.")
        return self._axis_conv(axis)

    @abstractmethod
    def _axis_conv(self, axis: int) -> Conv:
        """Return the convolution of one axis that exists."""

    def extra_repr(self) -> str:
        """Return the arguments that the printed submodules do not show."""
        return f"rank={self.rank}"


def bond_grams(factors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the Gram matrices of the two parts of a kernel that meet in each gap between its factors.

    The kernel is a sum over the channels of one gap, left part times right part.

    Args:
        factors: Shape ``(groups, inputs, taps, outputs)``, the inputs of each being the outputs of the one before.

    Returns:
        Two tensors ``(groups, channels, channels)`` for each gap: inner products of left and of right parts.
    """
    left: list[Tensor] = []
    right: list[Tensor] = []
    for factor in factors[:-1]:
        carried = torch.einsum("gac,gckd->gakd", left[-1], factor) if left else factor
        left.append(torch.einsum("gakb,gakd->gbd", factor, carried))
    for factor in factors[:0:-1]:
        carried = torch.einsum("gckd,gbd->gckb", factor, right[-1]) if right else factor
        right.append(torch.einsum("gakb,gckb->gac", factor, carried))
    return list(zip(left, reversed(right), strict=True))


def bond_norms(factors: Sequence[Tensor]) -> list[Tensor]:
    """Return the norm of what passes through each channel between the factors of a chain, whatever their scales.

    In each gap the norms sum up to at least the nuclear norm of the kernel's unfolding there, and to exactly that for
    the best of all factors with the same product.

    Args:
        factors: As in :func:`bond_grams`.

    Returns:
        One tensor ``(groups, channels)`` for each gap.
    """
    return [
        _root(left.diagonal(dim1=1, dim2=2) * right.diagonal(dim1=1, dim2=2)) for left, right in bond_grams(factors)
    ]


def bond_ranks(factors: Sequence[Tensor], threshold: float) -> list[int]:
    """Return how many singular values of the kernel's unfolding in each gap exceed a fraction of the largest.

    Args:
        factors: As in :func:`bond_grams`.
        threshold: The fraction.
    """
    ranks = []
    for left, right in bond_grams([factor.double() for factor in factors]):
        values, vectors = torch.linalg.eigh(left)
        half = vectors * values.clamp_min(0).sqrt().unsqueeze(1)
        singular = torch.linalg.eigvalsh(half.mT @ right @ half).clamp_min(0).sqrt()
        ranks.append(count_above(singular, threshold))
    return ranks


def count_above(values: Tensor, threshold: float) -> int:
    """Return the most ``values`` ``(groups, count)`` of any group above a fraction of the largest, but at least 1."""
    return max(1, int((values > threshold * values.max()).sum(1).max()))


def _root(squares: Tensor) -> Tensor:
    """Return square roots whose gradient at zero is zero."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1).sqrt(), 0)
