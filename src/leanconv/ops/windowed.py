"""Pointwise products that read windows of memory where they lie.

A pointwise convolution is a matrix product with the image as a matrix of one row a channel.  Any run of consecutive
memory is such a matrix too, so a *shift* of channels or of samples before the product (Zhong et al., 2018, arXiv
1809.08458) or overlapping windows of channels (Wang et al., 2021, arXiv 2101.00745) need not be written down: each
product starts to read elsewhere, and writes where its outputs belong.  Only a window across the end of an image is
copied.  Such products are for inference; a graph to be exported, compiled or differentiated takes the plain form
(slices, ``cat``, convolution) of the operators that use this.

With many images on a processor oneDNN's convolutions are hard to beat: they are worth writing the windows down for,
a few images at a time (:mod:`leanconv.ops.onednn`), unless there is little to compute for what is moved.
:func:`inference_form` has the rule.  The speed of products in place over that of oneDNN, measured on an AMD EPYC
(Zen 5) with one thread and 16 images: shifted groups of 96 channels on 14x14 0.6, of 48 on 28x28 0.7, of 24 on 56x56
1.1, of 12 on 28x28 1.9; rolling windows of 64 on 16x16 0.75, of 32 on 32x32 1.2.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from leanconv.ops import onednn

#: Widest window, in channels, and fewest samples of an image for products in place to beat oneDNN on a processor.
MOST_WIDTH, LEAST_SAMPLES = 32, 512

#: MACs of an image for its products to be worth their calls, where there are several images.
LEAST_MACS = 250_000

#: ``"first"`` and ``"last"``: products in place, by where the channels lie; ``"parts"``: the plain form by oneDNN.
Form = Literal["first", "last", "parts"]


def inference_form(x: Tensor, weight: Tensor, convolutions: int = 1) -> Form | None:
    """Say how to multiply windows of ``x``; the plain form serves where this returns None.

    Other forms need eager inference on dense memory, without autocast.  The order of the checks keeps them cheap.

    Args:
        x: ``(N, C, *spatial)``.
        weight: ``(out_channels, width)``, which axes of size 1 may follow.
        convolutions: Into how many convolutions the plain form by oneDNN divides the work.
    """
    if not infers(x, weight):
        return None
    first = x.is_contiguous()
    if not first and not x.movedim(1, -1).is_contiguous():
        return None
    if batched(x):
        return "first" if first else "last"
    samples, width = x.shape[2:].numel(), weight.shape[1]
    if not (first and width <= MOST_WIDTH and samples >= LEAST_SAMPLES) and onednn.worthwhile(
        x, weight[: weight.shape[0] // convolutions]
    ):
        return "parts"
    large = samples >= LEAST_SAMPLES and weight.numel() * samples >= LEAST_MACS and x.dtype.itemsize > 2
    return "first" if first and (x.shape[0] == 1 or large) else None


def infers(x: Tensor, weight: Tensor) -> bool:
    """Whether this is eager inference without autocast, in which operators may work on memory as it lies."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        return False
    if x.dtype != weight.dtype or x.numel() == 0 or not (x.is_cpu or x.is_cuda):
        return False
    return not torch.is_autocast_enabled(x.device.type)


def batched(x: Tensor) -> bool:
    """Whether one product serves all images; a processor takes them one by one, to find in its cache what it wrote."""
    return x.is_cuda


def shifted_pointwise(x: Tensor, weight: Tensor, first: int, bias: Tensor | None = None) -> Tensor:
    """Multiply each group of channels by its own block of weights, where the groups begin some channels on.

    Args:
        x: Contiguous images, ``(N, C, *spatial)``.
        weight: ``(groups, rows, C / groups)``.
        first: Channel at which the first group begins, below ``C / groups``; the last group wraps around.
        bias: Added to the result, one for each of its channels.

    Returns:
        ``(N, groups * rows, *spatial)``.
    """
    groups, rows, width = weight.shape
    if batched(x):
        samples = x.shape[2:].numel()
        return windowed_pointwise(x, weight, [(first + group * width) * samples for group in range(groups)], bias)
    images = x.flatten(2)
    _, channels, samples = images.shape
    last = channels - width + first
    out = images.new_empty(x.shape[0], groups, rows, samples)
    straight, wrapped = weight[:-1], weight[-1]
    added = None if bias is None else bias.view(groups, rows, 1)
    for image, target in zip(images.unbind(0), out.unbind(0), strict=True):
        inside = image[first:last].view(groups - 1, width, samples)
        around = torch.cat((image[last:], image[:first]))
        if added is None:
            torch.bmm(straight, inside, out=target[:-1])
            torch.mm(wrapped, around, out=target[-1])
        else:
            torch.baddbmm(added[:-1], straight, inside, out=target[:-1])
            torch.addmm(added[-1], wrapped, around, out=target[-1])
    return out.view(x.shape[0], groups * rows, *x.shape[2:])


def windowed_pointwise(
    x: Tensor, weight: Tensor, starts: Sequence[int], bias: Tensor | None = None, *, interleave: bool = False
) -> Tensor:
    """Multiply each window of an image's memory by its own block of weights.

    Args:
        x: Contiguous images, ``(N, C, *spatial)``.
        weight: ``(windows, rows, width)``.
        starts: First element of each window in the memory of an image, of which it reads ``width`` times as many
            as there are samples; windows may wrap around the end.
        bias: Added to the result, one for each of its channels.
        interleave: Write row ``r`` of window ``v`` to channel ``r * windows + v`` instead of ``v * rows + r``.

    Returns:
        ``(N, windows * rows, *spatial)``.
    """
    images, (windows, rows, width) = x.flatten(1), weight.shape
    samples = x.shape[2:].numel()
    out = images.new_empty(x.shape[0], *((rows, windows) if interleave else (windows, rows)), samples)
    targets = out.transpose(1, 2) if interleave else out
    if batched(x):
        for window, start in enumerate(starts):
            block = circular(images, start, width * samples).unflatten(1, (width, samples))
            torch.bmm(weight[window].expand(x.shape[0], -1, -1), block, out=targets[:, window])
    else:
        factors = weight.unbind(0)
        for image, target in zip(images.split(1), targets.unbind(0), strict=True):
            for factor, start, rows_out in zip(factors, starts, target.unbind(0), strict=True):
                torch.mm(factor, circular(image, start, width * samples).view(width, samples), out=rows_out)
    return _finish(out.view(x.shape[0], windows * rows, *x.shape[2:]), bias)


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
    for factor, start, target in zip(weight.mT.unbind(0), starts, out.unbind(1), strict=True):
        before = min(width, matrix.shape[1] - start)
        torch.mm(matrix[:, start : start + before], factor[:before], out=target)
        if before < width:  # copying short rows would cost more than a second product
            torch.addmm(target, matrix[:, : width - before], factor[before:], out=target)
    result = (out.transpose(1, 2) if interleave else out).flatten(1)
    return _finish(result.view(x.shape[0], *x.shape[2:], windows * rows).movedim(-1, 1), bias)


def circular(x: Tensor, start: int, length: int) -> Tensor:
    """Return ``length`` entries of axis 1 from ``start`` on, wrapping around."""
    total = x.shape[1]
    start %= total
    if start + length <= total:
        return x[:, start : start + length]
    return torch.cat((x[:, start:], x[:, : start + length - total]), 1)


def _finish(result: Tensor, bias: Tensor | None) -> Tensor:
    """Add the bias, if there is one, in place."""
    return result if bias is None else result.add_(bias.view(-1, *[1] * (result.dim() - 2)))
