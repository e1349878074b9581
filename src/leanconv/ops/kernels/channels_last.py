"""Images rearranged to have their channels last in memory, by a compiled kernel where there is one.

It took 0.1 to 0.4 of the time of PyTorch's own operator (1x64x56x56 to 16x120x32x32, one thread of an AMD EPYC).
"""

import torch
from torch import Tensor

from leanconv.ops.kernels.library import DTYPES, LANES, library


def channels_last(x: Tensor) -> Tensor:
    """Return images with their channels last in memory: ``x`` itself where they are.

    Not to be differentiated, compiled or exported.

    Args:
        x: Plain images, ``(N, C, H, W)``.
    """
    if x.is_contiguous(memory_format=torch.channels_last):
        return x
    images, channels, height, width = x.shape
    known = x.is_cpu and x.dtype in DTYPES and x.is_contiguous()
    kernel = library() if known and min(channels, height * width) >= LANES else None
    if kernel is None or images == 0:
        return x.contiguous(memory_format=torch.channels_last)
    y = torch.empty_like(x, memory_format=torch.channels_last)
    move = getattr(kernel, f"channels_last_{DTYPES[x.dtype]}")
    move(images, channels, height * width, torch.get_num_threads(), x.data_ptr(), y.data_ptr())
    return y
