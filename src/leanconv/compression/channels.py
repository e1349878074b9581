"""Channel decomposition: fewer outputs of the same kernel, then a pointwise mix.

Zhang et al., 2015, arXiv 1505.06798 (with the asymmetric targets of its section 3.3 where ``cross`` comes from another
network than ``gram``).
"""

from torch import Tensor

from leanconv.compression.least_squares import leading_eigenvectors, solve_normal_equations
from leanconv.linalg import truncated_svd


def channels_from_weight(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Fit the weights alone: the truncated SVD of the ``(c K, q)`` kernel.

    Args:
        weight: ``(*, q, c, K)``.
        rank: Channels in between; exact from ``min(q, c K)`` on.

    Returns:
        First kernel ``(*, c K, rank)`` and mix ``(*, rank, q)``.
    """
    u, s, vh = truncated_svd(weight.double().flatten(-2).mT, rank)
    return u * s.unsqueeze(-2), vh


def channels_from_moments(gram: Tensor, cross: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Fit the response: reduced-rank regression, the best fit of its rank.

    With the unconstrained solution ``M = gram⁻¹ cross``, the mix is ``Vᵀ`` and the first kernel ``M V`` for the leading
    eigenvectors ``V`` of ``Mᵀ gram M``, the second moments of its outputs.

    Args:
        gram: ``XᵀX``, ``(*, p, p)``.
        cross: ``XᵀY``, ``(*, p, q)``.
        rank: Channels in between, at most ``q``.

    Returns:
        First kernel ``(*, p, rank)`` and mix ``(*, rank, q)``.
    """
    best = solve_normal_equations(gram.double(), cross.double())
    vectors = leading_eigenvectors(best.mT @ cross.double(), rank)
    return best @ vectors, vectors.mT
