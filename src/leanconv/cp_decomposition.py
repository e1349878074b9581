"""Canonical polyadic (CP) decomposition in float64: a tensor as a sum of rank-one terms.

Alternating least squares (Carroll and Chang, 1970; Harshman, 1970), kept away from its known traps:

- *Terms that grow while cancelling each other*, known from convolution kernels too (Phan et al., 2020, arXiv
  2008.05441): the fit minimises ``|tensor - sum of terms|² + penalty * sum of |term|²``, the penalty falls to zero in
  steps, and it stops falling where the terms would outgrow a bound.  All it does is inflate the diagonals of the
  normal equations.
- *Bad starts*: where the rank is at most the second longest mode, one start comes from an eigenvalue problem that
  solves exact decompositions (Leurgans, Ross and Abel, 1993).  Another keeps the strongest rank-one terms of the
  slices across the two longest modes, a third is random, and the best after a few sweeps goes on.
- *Cost*: modes longer than the rank are compressed to it first (Bro and Andersson, 1998); the full tensor only
  refines the result.  A sweep takes two matrix products, of ``2 rank * tensor.numel()`` operations each.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from leanconv.linalg import truncated_svd

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 0.0)
#: Terms diverge where the root of their summed squared norms exceeds this multiple of the tensor's norm.
DIVERGING = 10.0
#: A relative error below this is rounding.
EXACT = 1e-10
#: Sweeps between two looks at the error, and the relative gain in between that makes more sweeps worth while.
SWEEPS, GAIN = 10, 5e-5


def full_cp_rank(modes: Sequence[int]) -> int:
    """Return a rank at which any tensor with these modes is a sum of rank-one terms: all but the longest mode."""
    return math.prod(modes) // max(modes)


def cp_decomposition(tensor: Tensor, rank: int, *, seed: int = 0) -> list[Tensor]:
    """Decompose a batch of tensors into ``rank`` rank-one terms each.

    Exact from :func:`full_cp_rank` on and for two modes longer than one sample (a truncated SVD then); exact up to
    rounding in practice for tensors that have an exact decomposition with a rank up to the second longest mode.

    Args:
        tensor: Shape ``(batch, n_1, ..., n_d)``.
        rank: Terms, at least 1.
        seed: Of the random starts; the result is a function of the tensor, the rank and the seed.

    Returns:
        Factors of shape ``(batch, n_j, rank)``: the tensor is about ``sum_r outer(f_1[:, r], ..., f_d[:, r])``.
        The norm of a term is shared evenly between its factors.
    """
    batch, *modes = tensor.shape
    # The two longest modes come first; others of one sample hold nothing but a scale.
    order = sorted(range(len(modes)), key=lambda mode: -modes[mode])
    order = order[: max(2, sum(size > 1 for size in modes))]
    packed = tensor.double().movedim([1 + mode for mode in order], list(range(1, 1 + len(order))))
    packed = packed.reshape(batch, *(modes[mode] for mode in order))
    if len(order) == 2:
        u, s, vh = truncated_svd(packed, rank)
        found = [u * s.unsqueeze(1), vh.mT]
    elif rank >= full_cp_rank(modes):
        found = _one_hot(packed, rank)
    else:
        found = _fit(packed, rank, torch.Generator().manual_seed(seed))
    factors = [packed.new_ones(batch, 1, rank)] * len(modes)
    for mode, factor in zip(order, found, strict=True):
        factors[mode] = factor
    return _balanced(factors)


def term_norms(factors: Sequence[Tensor]) -> Tensor:
    """Return the norm of each rank-one term, shape ``(batch, rank)``, from factors ``(batch, n_j, rank)``."""
    return torch.stack([torch.linalg.vector_norm(factor, dim=1) for factor in factors]).prod(0)


def compose(factors: Sequence[Tensor]) -> Tensor:
    """Return the batch of tensors that factors ``(batch, n_j, rank)`` stand for."""
    first, *others = factors
    return (first @ _khatri_rao(others).mT).reshape(first.shape[0], *(f.shape[1] for f in factors))


def _one_hot(tensor: Tensor, rank: int) -> list[Tensor]:
    # One term for each index of all modes but the first, the longest.
    batch, first, *others = tensor.shape
    unfolded = tensor.reshape(batch, first, -1)
    index = torch.unravel_index(torch.arange(unfolded.shape[2], device=tensor.device), others)
    hot = [F.one_hot(i, n).T.to(tensor).expand(batch, -1, -1) for i, n in zip(index, others, strict=True)]
    return [F.pad(factor, (0, rank - unfolded.shape[2])) for factor in (unfolded, *hot)]


def _fit(tensor: Tensor, rank: int, generator: torch.Generator) -> list[Tensor]:
    norm = torch.linalg.vector_norm(tensor.flatten(1), dim=1).view(-1, *[1] * (tensor.dim() - 1))
    tensor = tensor / norm.clamp_min(torch.finfo(tensor.dtype).tiny)
    core, bases = tensor, {}
    for mode in (1, 2):
        if tensor.shape[mode] > rank:
            bases[mode], _, _ = truncated_svd(tensor.movedim(mode, 1).flatten(2), rank)
            core = torch.einsum("ga...,gar->gr...", core.movedim(mode, 1), bases[mode]).movedim(1, mode)
    factors = _fit_core(_Sweeps(core), rank, generator)
    factors = [bases[mode] @ factor if mode in bases else factor for mode, factor in enumerate(factors, start=1)]
    if bases:
        factors = _Sweeps(tensor).run(factors, 0.0, limit=20 * SWEEPS)
    return [factors[0] * norm.reshape(-1, 1, 1), *factors[1:]]


def _fit_core(sweeps: "_Sweeps", rank: int, generator: torch.Generator) -> list[Tensor]:
    starts = [_strongest_slices(sweeps.tensor, rank), _random(sweeps.tensor, rank, generator)]
    if rank <= sweeps.tensor.shape[2]:
        solved = [_eigenvectors(sweeps.tensor, generator) for _ in range(3)]
        best = min((sweeps.run(start, 0.0, 10 * SWEEPS, bounded=False) for start in solved), key=sweeps.error)
        if sweeps.error(best) < EXACT:
            return best
    factors = min((sweeps.run(start, PENALTIES[0], SWEEPS) for start in starts), key=sweeps.error)
    for penalty in PENALTIES:
        factors = sweeps.run(factors, penalty, 3 * SWEEPS if penalty else 100 * SWEEPS)
    return factors


def _random(tensor: Tensor, rank: int, generator: torch.Generator) -> list[Tensor]:
    batch, *modes = tensor.shape
    return [torch.randn(batch, n, rank, generator=generator, dtype=tensor.dtype).to(tensor.device) for n in modes]


def _strongest_slices(tensor: Tensor, rank: int) -> list[Tensor]:
    _, _, _, *others = tensor.shape
    u, s, vh = torch.linalg.svd(tensor.flatten(3).movedim(3, 1), full_matrices=False)
    norms, index = s.flatten(1).topk(rank, dim=1)
    left = torch.take_along_dim(u.mT.flatten(1, 2), index.unsqueeze(2), 1).mT * norms.unsqueeze(1)
    right = torch.take_along_dim(vh.flatten(1, 2), index.unsqueeze(2), 1).mT
    where = torch.unravel_index(index // s.shape[2], others)
    return [left, right, *(F.one_hot(i, n).mT.to(tensor) for i, n in zip(where, others, strict=True))]


def _eigenvectors(tensor: Tensor, generator: torch.Generator) -> list[Tensor]:
    # Two mixtures of slices A diag(c) B' have A as the eigenvectors of one times the inverse of the other.
    slices = tensor.flatten(3)
    mixing = torch.randn(slices.shape[3], 2, generator=generator, dtype=tensor.dtype).to(tensor.device)
    one, other = (slices @ mixing).unbind(3)
    values, vectors = torch.linalg.eig(one @ torch.linalg.pinv(other))
    first = torch.where(values.imag.unsqueeze(1) < 0, vectors.imag, vectors.real)
    rest = torch.linalg.pinv(first) @ tensor.flatten(2)
    factors = [first]
    for size in tensor.shape[2:-1]:
        u, s, vh = truncated_svd(rest.unflatten(2, (size, -1)), 1)
        factors.append(u.squeeze(3).mT)
        rest = s * vh.squeeze(2)
    return [*factors, rest.mT]


class _Sweeps:
    """Sweeps of alternating least squares over a batch of tensors of norm one with at least three modes."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.by_first = tensor.flatten(3).movedim(1, 3).flatten(1, 2)  # (g, n_2 S, n_1), S samples of the other modes
        self.by_second = tensor.flatten(3).transpose(2, 3).flatten(1, 2)  # (g, n_1 S, n_2)

    def error(self, factors: list[Tensor]) -> float:
        """Return the largest distance of a tensor of the batch from its terms."""
        error = float(torch.linalg.vector_norm((self.tensor - compose(factors)).flatten(1), dim=1).max())
        return error if math.isfinite(error) else math.inf

    def run(self, factors: list[Tensor], penalty: float, limit: int, *, bounded: bool = True) -> list[Tensor]:
        """Sweep until it gains little, ``limit`` sweeps at most; step back from terms that diverge if ``bounded``."""
        error = math.inf
        for _ in range(0, limit, SWEEPS):
            swept = _balanced(factors)
            for _ in range(SWEEPS):
                swept = self._sweep(swept, penalty)
            before, error = error, self.error(swept)
            diverging = bool((torch.linalg.vector_norm(term_norms(swept), dim=1) > DIVERGING).any())
            if error == math.inf or (bounded and diverging and error > EXACT):
                break
            factors = swept
            if error < EXACT * 1e-4 or before - error < GAIN * error:
                break
        return factors

    def _sweep(self, factors: list[Tensor], penalty: float) -> list[Tensor]:
        first, second, *others = factors
        grams = [factor.mT @ factor for factor in factors]
        sizes = [factor.shape[1] for factor in others]
        part = (self.by_second @ second).unflatten(1, (-1, math.prod(sizes)))  # (g, n_1, S, r)
        first = _update(first, (part * _khatri_rao(others).unsqueeze(1)).sum(2), grams, 0, penalty)
        part = (part * first.unsqueeze(2)).sum(1).unflatten(1, sizes)
        for mode in range(len(others)):
            rest = [factor for i, factor in enumerate(others) if i != mode]
            product = part.movedim(1 + mode, 1).reshape(part.shape[0], sizes[mode], -1, part.shape[-1])
            if rest:
                product = product * _khatri_rao(rest).unsqueeze(1)
            others[mode] = _update(others[mode], product.sum(2), grams, 2 + mode, penalty)
        part = (self.by_first @ first).unflatten(1, (-1, math.prod(sizes)))  # (g, n_2, S, r)
        second = _update(second, (part * _khatri_rao(others).unsqueeze(1)).sum(2), grams, 1, penalty)
        return _balanced([first, second, *others])


def _update(factor: Tensor, product: Tensor, grams: list[Tensor], mode: int, penalty: float) -> Tensor:
    # Solves for the step, not for the factor: the tiny shift that keeps the system regular then leaves no trace.
    normal = torch.stack([gram for i, gram in enumerate(grams) if i != mode]).prod(0)
    diagonal = normal.diagonal(dim1=1, dim2=2)
    shift = 1e-12 * diagonal.amax(1, keepdim=True) + torch.finfo(normal.dtype).tiny
    residual = product - factor @ normal - penalty * factor * diagonal.unsqueeze(1)
    cholesky, _ = torch.linalg.cholesky_ex(normal + torch.diag_embed(penalty * diagonal + shift))
    factor = factor + torch.cholesky_solve(residual.mT, cholesky).mT
    grams[mode] = factor.mT @ factor
    return factor


def _khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Return the products of one entry of each factor, shape ``(batch, n_1 ... n_d, rank)``."""
    product = factors[0]
    for factor in factors[1:]:
        product = (product.unsqueeze(2) * factor.unsqueeze(1)).flatten(1, 2)
    return product


def _balanced(factors: Sequence[Tensor]) -> list[Tensor]:
    norms = [torch.linalg.vector_norm(factor, dim=1, keepdim=True) for factor in factors]
    share = torch.stack(norms).prod(0) ** (1 / len(factors))
    return [torch.where(norm > 0, factor / norm, 0) * share for factor, norm in zip(factors, norms, strict=True)]
