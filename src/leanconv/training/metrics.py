"""Metrics as sums over the images of a batch, so that any split into batches and processes agrees."""

import torch
import torch.nn.functional as F
from torch import Tensor


def classification_sums(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return sums over a batch: ``loss`` (cross-entropy), ``top1`` and, above five classes, ``top5`` hits.

    Args:
        logits: Scores of shape (N, classes).
        targets: Class indices of shape (N,).
    """
    logits = at_least_float32(logits)
    sums = {
        "loss": F.cross_entropy(logits, targets, reduction="sum").double(),
        "top1": (logits.argmax(1) == targets).sum().double(),
    }
    if logits.shape[1] > 5:
        top5 = logits.topk(5, dim=1).indices
        sums["top5"] = (top5 == targets[:, None]).sum().double()
    return sums


def at_least_float32(values: Tensor) -> Tensor:
    """Return ``values`` in float32 if autocast left them in a type too coarse to sum."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def add_sums(total: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``total + batch``, where a missing entry counts as zero."""
    return {name: total[name] + value if name in total else value for name, value in batch.items()}
