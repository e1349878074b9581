"""Pointwise convolutions for inference on a processor, by oneDNN and in parts that its caches hold.

With one thread PyTorch hands a pointwise convolution to oneDNN from 16 images on, and multiplies fewer one by one.
Measured on an AMD EPYC (Zen 5, float32): 8 images of 384x14x14 in 4 groups take oneDNN 0.8 ms, one by one 1.5 ms; below
2 million MACs it is slower, as it takes longer to rearrange weights than to multiply.

It writes its arguments down once more, and what is large the operating system may hand out afresh, page by page, on
every call: 16 such images take 1.9 ms or 8.2 ms, depending on what the process has allocated before.  In four parts
they take 1.9 ms either way, and 16 of 192x28x28 2.4 to 2.7 instead of 3.5 to 16 ms; half as large ones lose more than a
tenth to the calls.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

#: Images and MACs of a convolution from which oneDNN pays.
LEAST_IMAGES, LEAST_MACS = 8, 4_000_000

#: Elements (4 MiB of float32) from which images are convolved in at least so many parts, and those of a part at most.
LEAST_ELEMENTS, PARTS, PART_ELEMENTS = 1_048_576, 4, 1_310_720


def worthwhile(x: Tensor, weight: Tensor) -> bool:
    """Whether a pointwise convolution of ``x`` by oneDNN is possible and pays, where there is no gradient to compute.

    Args:
        x: ``(N, C, *spatial)``.
        weight: Its first two sizes are those of the convolution's weight.
    """
    if not (x.is_cpu and x.dtype == weight.dtype == torch.float32 and x.shape[0] >= LEAST_IMAGES):
        return False
    macs = x.shape[0] * x.shape[2:].numel() * weight.shape[0] * weight.shape[1]
    return macs >= LEAST_MACS and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """Convolve ``(N, C, *spatial)`` with ``(out_channels, C / groups)`` weights; axes of size 1 may follow."""
    image = x if x.dim() == 4 else x.flatten(2).unsqueeze(2)
    kernel = weight.flatten(1)[..., None, None]
    y: Tensor = torch.mkldnn_convolution(image, kernel, bias, (0, 0), (1, 1), (1, 1), groups)
    return y if x.dim() == 4 else y.view(*y.shape[:2], *x.shape[2:])


def in_parts(form: Callable[[Tensor], Tensor], x: Tensor, parts: int = PARTS) -> Tensor:
    """Apply ``form`` to a few images at a time, so that intermediate results are found in the cache.

    Args:
        form: A function of images that keeps their size.
        x: ``(N, C, *spatial)``.
        parts: How many parts are worth it where a part need not be smaller.
    """
    count = max(parts if x.numel() >= LEAST_ELEMENTS else 1, -(-x.numel() // PART_ELEMENTS))
    pieces = iter(x.chunk(count))
    first = form(next(pieces))
    if first.shape[0] == x.shape[0]:
        return first
    last = first.dim() == 4 and not first.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    result = torch.empty(
        (x.shape[0], *first.shape[1:]), dtype=first.dtype, device=first.device, memory_format=memory_format
    )
    target, *targets = result.split(first.shape[0])
    target.copy_(first)
    for piece, target in zip(pieces, targets, strict=True):
        target.copy_(form(piece))
    return result


@register_flop_formula(torch.ops.aten.mkldnn_convolution)
def _flops(x_shape: torch.Size, weight_shape: torch.Size, *_: Any, out_shape: torch.Size, **__: Any) -> int:
    flops: int = conv_flop_count(list(x_shape), list(weight_shape), list(out_shape))
    return flops
