"""Parameters and multiply-accumulates of a module, counted by torch without any compute."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def sizes(build: Callable[[], nn.Module], *input_size: int) -> tuple[int, int]:
    """Return parameters and MACs of what ``build`` makes, on inputs of ``input_size``, the batch included."""
    with torch.device("meta"):
        module = build().eval()
        with FlopCounterMode(display=False) as counter:
            module(torch.empty(*input_size))
    return sum(p.numel() for p in module.parameters()), counter.get_total_flops() // 2
