"""Least squares from second moments: what every fit to data here is built on, in float64.

A convolution is a linear map of its input patches, so its error on any number of images depends on them through
second moments alone: with centred patches ``X`` (N x p), centred targets ``Y`` (N x q) and a kernel ``M`` (p x q)

    |Y - X M|² = |Y|² - 2 <M, Xᵀ Y> + <M, XᵀX M>.

Fits therefore take the Gram matrix ``XᵀX`` and the cross moments ``XᵀY``, whose size does not depend on N.  All
functions accept leading batch dimensions, one problem for each group of a grouped convolution.
"""

import torch
from torch import Tensor

#: Eigenvalues below this fraction of the largest count as zero: twice the digits that a float64 Gram matrix keeps.
RANK_TOLERANCE = 1e-12


def solve_normal_equations(gram: Tensor, cross: Tensor) -> Tensor:
    """Return the kernel ``M`` of least error, ``gram @ M = cross``; the shortest one where several are.

    Args:
        gram: ``(*, p, p)``, symmetric and positive semi-definite.
        cross: ``(*, p, q)``.
    """
    # Scaled to a unit diagonal, a matrix of unequally scaled columns is as well conditioned as it can cheaply be.
    scale = gram.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    scale = torch.where(scale > 0, 1 / scale, 0).unsqueeze(-1)
    scaled, right = gram * scale * scale.mT, cross * scale
    factor, failed = torch.linalg.cholesky_ex(scaled)
    if not failed.any() and bool((factor.diagonal(dim1=-2, dim2=-1) ** 2 > RANK_TOLERANCE).all()):
        solution: Tensor = scale * torch.cholesky_solve(right, factor)
        return solution
    values, vectors = torch.linalg.eigh(scaled)
    inverse = torch.where(values > RANK_TOLERANCE * values[..., -1:], 1 / values, 0)
    shortest: Tensor = scale * (vectors @ (inverse.unsqueeze(-1) * (vectors.mT @ right)))
    return shortest


def square_roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric square root of a positive semi-definite matrix and its pseudo-inverse.

    Args:
        matrix: ``(*, p, p)``.
    """
    values, vectors = torch.linalg.eigh(matrix)
    roots = values.clamp_min(0).sqrt()
    kept = values > RANK_TOLERANCE * values[..., -1:].clamp_min(torch.finfo(values.dtype).tiny)
    inverse = torch.where(kept, 1 / roots, 0)
    return (vectors * roots.unsqueeze(-2)) @ vectors.mT, (vectors * inverse.unsqueeze(-2)) @ vectors.mT


def leading_eigenvectors(matrix: Tensor, rank: int) -> Tensor:
    """Return the eigenvectors of the ``rank`` largest eigenvalues of a symmetric matrix, largest first.

    Args:
        matrix: ``(*, p, p)``.
        rank: At most ``p``.
    """
    leading: Tensor = torch.linalg.eigh(matrix).eigenvectors[..., -rank:].flip(-1)
    return leading


def square_error(gram: Tensor, cross: Tensor, energy: Tensor, kernel: Tensor) -> Tensor:
    """Return ``|Y - X M|²`` from the moments of ``X`` and ``Y``.

    Args:
        gram: ``XᵀX``, ``(*, p, p)``.
        cross: ``XᵀY``, ``(*, p, q)``.
        energy: ``|Y|²``, ``(*)``.
        kernel: ``M``, ``(*, p, q)``.
    """
    return energy + (kernel * (gram @ kernel - 2 * cross)).sum((-2, -1))
