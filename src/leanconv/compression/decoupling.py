"""Network decoupling: a kernel as a sum of depthwise separable terms, from its weights alone.

Guo et al., 2018, arXiv 1808.05517.  *Depthwise first* (their DP) cuts the kernel into one matrix for each input
channel; this is :func:`~leanconv.compression.depthwise.depthwise_from_weight`.  *Pointwise first* (PD) cuts it into one
``(K x c)`` matrix for each output channel, ``W_o = U S Vᵀ``: 1x1 kernels ``Vᵀ`` and depthwise kernels ``U S``.  It is
also the factorisation behind decoupled convolutions (Xie et al., 2018, doi 10.1609/aaai.v32i1.11638).
"""

import torch
from torch import Tensor

from leanconv.linalg import truncated_svd


def decouple_pointwise_first(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the best ``rank`` terms of a pointwise map followed by one depthwise kernel a term and output channel.

    Args:
        weight: ``(*, q, c, K)``.
        rank: Terms for each output channel; exact from ``min(c, K)`` on.

    Returns:
        Pointwise kernels ``(*, q, rank, c)`` and depthwise kernels ``(*, q, rank, K)``.
    """
    u, s, vh = truncated_svd(weight.double().mT, rank)
    return vh, (u * s.unsqueeze(-2)).mT


def energy_rank(matrices: Tensor, share: float) -> int:
    """Return the smallest rank that keeps a share of the squared singular values, averaged over matrices.

    The rule by which the paper chooses one rank for a layer (0.95 in its released code).

    Args:
        matrices: ``(*, m, n)``, such as the ``(c, q, K)`` slices of a kernel.
        share: Between 0 and 1.
    """
    energy = torch.linalg.svdvals(matrices.double()).square()
    kept = (energy.cumsum(-1) / energy.sum(-1, keepdim=True)).nan_to_num(1.0)
    mean = kept.flatten(0, -2).mean(0) if kept.dim() > 1 else kept
    below = int((mean < share - 1e-12).sum())
    return below + 1 if below < mean.numel() else below
