"""The device that training and evaluation compute on."""

import torch

from leanconv.errors import UserError
from leanconv.measurement.placement import checked_device


def compute_device(device: torch.device | str) -> torch.device:
    """Return ``device`` if a network can be trained or evaluated on it.

    Raises:
        UserError: There is no such device here, or it is the one without numbers.
    """
    where = checked_device(device)
    if where.type == "meta":
        raise UserError(f"`device` {str(device)!r} holds shapes without numbers: name the cpu or an accelerator.")
    return where
