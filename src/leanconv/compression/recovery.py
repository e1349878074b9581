"""What brings accuracy back before any training: statistics of batch norm for the layers as they are now."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from leanconv.compression.calibration import Calibration
from leanconv.compression.conversion import IMAGES


def reestimate_batch_norm(model: nn.Module, inputs: Iterable[Any], *, images: int = IMAGES) -> int:
    """Replace the running statistics of batch norm by averages over calibration samples, without gradients.

    Dropout stays off; training mode and momentum are put back.

    Args:
        model: The network, changed in place.
        inputs: Batches of calibration samples, as in :func:`~leanconv.compression.convert`.
        images: Samples to read.

    Returns:
        The number of batch norms that were re-estimated.

    Raises:
        UserError: ``inputs`` give no samples, or samples that are not finite.
    """
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    calibration = Calibration(inputs, images, first.device, first.dtype)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over all batches
            norm.train()
        with torch.no_grad():
            for x in calibration.pieces():
                model(x)
    finally:
        for module, training in modes.items():
            module.training = training
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return len(norms)
