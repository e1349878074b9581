"""Decompositions of matrices and tensors in float64: truncated singular values, tensor trains."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: The Gram route pays from this smaller side on, and where the larger side is this many times as long.
GRAM_SIDE = 64
GRAM_ASPECT = 2


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading ``rank`` singular triplets ``U, S, Vh`` of (a batch of) matrices, in float64.

    The best approximation of that rank in the Frobenius norm is ``U @ diag(S) @ Vh`` (Eckart and Young, 1936).
    Where ``rank`` exceeds the smaller side, the missing triplets are zeros, so shapes depend on ``rank`` alone.

    A large elongated matrix, such as the unfolding of a wide layer's kernel, goes through the Gram matrix of its
    smaller side, which is several times faster.  Its triplets are as accurate as those of the direct route, about
    1e-14 of the largest singular value, except that directions with singular values below about 1e-7 of the largest
    cannot be told apart: the approximation may then miss the best one by that much.  At full rank nothing is missed.

    Args:
        matrix: Shape ``(*, m, n)``.
        rank: Number of triplets, at least 1.

    Returns:
        Shapes ``(*, m, rank)``, ``(*, rank)`` and ``(*, rank, n)``.
    """
    matrix = matrix.double()
    small, large = sorted(matrix.shape[-2:])
    if small < GRAM_SIDE or large < GRAM_ASPECT * small:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    elif matrix.shape[-2] == small:
        u, s, vh = _svd_of_wide(matrix, min(rank, small))
    else:
        v, s, uh = _svd_of_wide(matrix.mT, min(rank, small))
        u, vh = uh.mT, v.mT
    missing = rank - s.shape[-1]
    if missing > 0:
        u = torch.nn.functional.pad(u, (0, missing))
        s = torch.nn.functional.pad(s, (0, missing))
        vh = torch.nn.functional.pad(vh, (0, 0, 0, missing))
    return u[..., :rank], s[..., :rank], vh[..., :rank, :]


def _svd_of_wide(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    # Eigenvectors of the Gram matrix feel the square of the condition number.  Applying the matrix to them, and once
    # more to what comes out, as in a subspace iteration, leaves only the condition number itself.
    vectors = torch.linalg.eigh(matrix @ matrix.mT).eigenvectors[..., -rank:].flip(-1)
    rows, _ = torch.linalg.qr(matrix.mT @ vectors)
    u, s, vh = torch.linalg.svd(matrix @ rows, full_matrices=False)
    return u, s, vh @ rows.mT


def full_ranks(modes: Sequence[int]) -> tuple[int, ...]:
    """Return the ranks at which a tensor train over ``modes`` is exact for any tensor, one between each two modes."""
    return tuple(min(math.prod(modes[:cut]), math.prod(modes[cut:])) for cut in range(1, len(modes)))


def tensor_train(tensor: Tensor, ranks: Sequence[int]) -> list[Tensor]:
    """Decompose a batch of tensors into tensor trains by successive SVDs (Oseledets, 2011), in float64.

    The fit is the best one for a single cut and within ``sqrt(cuts)`` of it for several.  The singular values of
    each cut are shared evenly between the factors on its two sides.

    Args:
        tensor: Shape ``(batch, n_1, ..., n_d)``.
        ranks: The ``d - 1`` ranks between the modes.

    Returns:
        Factors of shape ``(batch, r_(j-1), n_j, r_j)`` with ``r_0 = r_d = 1``.
    """
    batch, *modes = tensor.shape
    rest = tensor.double().reshape(batch, 1, -1)
    root = rest.new_ones(batch, 1)
    factors: list[Tensor] = []
    for size, rank in zip(modes[:-1], ranks, strict=True):
        u, s, vh = truncated_svd(rest.unflatten(2, (size, -1)).flatten(1, 2), rank)
        # A row of `u` that belongs to a small singular value of the cut before is small too, so dividing is safe.
        factor = _inverse(root)[:, :, None, None] * u.unflatten(1, (-1, size))
        root = s.sqrt()
        factors.append(factor * root[:, None, None, :])
        rest = s.unsqueeze(-1) * vh
    return [*factors, (_inverse(root).unsqueeze(-1) * rest).unsqueeze(-1)]


def _inverse(values: Tensor) -> Tensor:
    return torch.where(values > 0, 1 / values, 0)
