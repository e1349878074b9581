"""Pointwise products that read windows of memory where they lie.

A pointwise convolution is a matrix product with the image as a matrix of one row a channel.  Any run of consecutive
memory is such a matrix too, so a *shift* of channels or of samples before the product (Zhong et al., 2018, arXiv
1809.08458) or overlapping windows of channels (Wang et al., 2021, arXiv 2101.00745) need not be written down: each
product starts to read elsewhere, and writes where its outputs belong.  Such products are for inference; a graph to be
exported, compiled or differentiated takes the plain form (slices, ``cat``, convolution) of the operators that use this.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

#: Samples of an image from which the products are worth their calls; one convolution serves smaller images together.
LEAST_SAMPLES = 128


def reads_in_place(x: Tensor, weight: Tensor, *, channels_last: bool = False) -> bool:
    """Whether products on the memory of ``x`` are possible and pay: eager inference, contiguous, large enough."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        return False
    memory = x.movedim(1, -1) if channels_last else x
    samples = math.prod(x.shape[2:]) * (x.shape[0] if channels_last else 1)
    return (
        memory.is_contiguous()
        and x.numel() > 0
        and samples >= LEAST_SAMPLES
        and x.dtype == weight.dtype
        and not (torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type))
    )


def windowed_pointwise(
    x: Tensor, weight: Tensor, starts: Sequence[int], bias: Tensor | None = None, *, interleave: bool = False
) -> Tensor:
    """Multiply each window of an image's memory by its own block of weights.

    Args:
        x: Contiguous images, ``(N, C, *spatial)``.
        weight: ``(windows, rows, width)``.
        starts: First element of each window in the memory of an image, of which it reads ``width`` times as many
            as there are samples; windows wrap around the end.
        bias: Added to the result, one for each of its channels.
        interleave: Write row ``r`` of window ``v`` to channel ``r * windows + v`` instead of ``v * rows + r``.

    Returns:
        ``(N, windows * rows, *spatial)``.
    """
    images, (windows, rows, width) = x.flatten(1), weight.shape
    samples = math.prod(x.shape[2:])
    order = (rows, windows) if interleave else (windows, rows)
    out = x.new_empty(x.shape[0], *order, samples)
    by_window = out.transpose(1, 2) if interleave else out
    for window, start in enumerate(starts):
        target = by_window[:, window]
        for first, block in _blocks(images, start, width, samples):
            factor = weight[window, :, first : first + block.shape[1]]
            if x.shape[0] == 1:
                _accumulate(target[0], factor, block[0], first > 0)
            else:
                _accumulate(target, factor.expand(x.shape[0], -1, -1), block, first > 0)
    result = out.view(x.shape[0], windows * rows, *x.shape[2:])
    return result if bias is None else result.add_(bias.view(-1, *[1] * (x.dim() - 2)))


def windowed_pointwise_last(
    x: Tensor, weight: Tensor, starts: Sequence[int], bias: Tensor | None = None, *, interleave: bool = False
) -> Tensor:
    """:func:`windowed_pointwise` over windows of channels of images whose channels lie last in memory.

    Args:
        x: Images in ``torch.channels_last`` order.
        weight: ``(windows, rows, width)``.
        starts: First channel of each window.
        bias: Added to the result.
        interleave: As in :func:`windowed_pointwise`; here it costs a copy.
    """
    matrix = x.movedim(1, -1).flatten(0, -2)
    windows, rows, width = weight.shape
    out = matrix.new_empty(matrix.shape[0], windows, rows)
    for window, start in enumerate(starts):
        for first, block in _blocks(matrix, start, width, 1):
            factor = weight[window, :, first : first + block.shape[1]].t()
            _accumulate(out[:, window], block.squeeze(2), factor, first > 0)
    result = (out.transpose(1, 2) if interleave else out).flatten(1)
    if bias is not None:
        result.add_(bias)
    return result.view(x.shape[0], *x.shape[2:], windows * rows).movedim(-1, 1)


def circular(x: Tensor, start: int, length: int) -> Tensor:
    """Return ``length`` entries of axis 1 from ``start`` on, wrapping around."""
    total = x.shape[1]
    start %= total
    if start + length <= total:
        return x[:, start : start + length]
    return torch.cat((x[:, start:], x[:, : start + length - total]), 1)


def _blocks(images: Tensor, start: int, width: int, samples: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the rows ``(N, rows, samples)`` of a window that wraps, each with the number of its first row.

    Only the row across the end of the memory, if there is one, is copied.
    """
    total = images.shape[1]
    start %= total
    before, across = divmod(total - start, samples)
    if before >= width:
        yield 0, images[:, start : start + width * samples].unflatten(1, (width, samples))
        return
    if before:
        yield 0, images[:, start : start + before * samples].unflatten(1, (before, samples))
    if across:
        yield before, torch.cat((images[:, total - across :], images[:, : samples - across]), 1).unsqueeze(1)
    rest = width - before - (across > 0)
    if rest:
        offset = samples - across if across else 0
        yield width - rest, images[:, offset : offset + rest * samples].unflatten(1, (rest, samples))


def _accumulate(target: Tensor, left: Tensor, right: Tensor, add: bool) -> None:
    """Write, or add, a matrix product (of each image, if there are three axes) into ``target``."""
    # The forms with ``out=`` rather than ``addmm_``, which torch.utils.flop_counter does not know.
    if target.dim() == 2:
        torch.addmm(target, left, right, out=target) if add else torch.mm(left, right, out=target)
    else:
        torch.baddbmm(target, left, right, out=target) if add else torch.bmm(left, right, out=target)
