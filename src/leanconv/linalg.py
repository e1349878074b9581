"""Truncated singular value decompositions in float64."""

import torch
from torch import Tensor


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading ``rank`` singular triplets ``U, S, Vh`` of (a batch of) matrices, in float64.

    The best approximation of that rank in the Frobenius norm is ``U @ diag(S) @ Vh`` (Eckart and Young, 1936).
    Where ``rank`` exceeds the smaller side, the missing triplets are zeros, so shapes depend on ``rank`` alone.

    Args:
        matrix: Shape ``(*, m, n)``.
        rank: Number of triplets, at least 1.

    Returns:
        Shapes ``(*, m, rank)``, ``(*, rank)`` and ``(*, rank, n)``.
    """
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    missing = rank - s.shape[-1]
    if missing > 0:
        u = torch.nn.functional.pad(u, (0, missing))
        s = torch.nn.functional.pad(s, (0, missing))
        vh = torch.nn.functional.pad(vh, (0, 0, 0, missing))
    return u[..., :rank], s[..., :rank], vh[..., :rank, :]
