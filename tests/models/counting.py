"""Parameters and multiply-accumulates, counted by torch without any compute."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from leanconv.models import create_model


def counts(name: str, input_size: Sequence[int], **options: Any) -> tuple[int, int]:
    """Return parameters and MACs of a registered network on inputs of ``input_size``, the batch included."""
    with torch.device("meta"):
        model = create_model(name, **options).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(*input_size))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2
