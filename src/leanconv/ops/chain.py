"""Plain convolutions one after the other: how to start them, and which neighbours may as well be one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from leanconv.ops.affine import Affine, Unfoldable
from leanconv.ops.geometry import Geometry
from leanconv.ops.structured import Conv, geometry_of, make_conv

#: Depthwise neighbours merge up to this many taps: 5x5 or 3x3x3.
MERGED_TAPS = 27


def init_chain(convs: Sequence[Conv], fan_in: int) -> None:
    """Initialise a chain like the dense convolution it stands for, with the output variance ``nn.ConvNd`` has.

    All convolutions but the last keep the variance of what passes through them.

    Args:
        convs: The chain, first applied first; at most the last has a bias.
        fan_in: Inputs of each output of the dense convolution, which decide the range of the bias.
    """
    *inner, last = convs
    for conv in inner:
        bound = math.sqrt(3 / conv.weight[0].numel())
        nn.init.uniform_(conv.weight, -bound, bound)
    bound = math.sqrt(1 / last.weight[0].numel())
    nn.init.uniform_(last.weight, -bound, bound)
    if last.bias is not None:
        bound = math.sqrt(1 / fan_in)
        nn.init.uniform_(last.bias, -bound, bound)


def fold_chain(convs: Sequence[Conv]) -> list[Conv]:
    """Return convolutions that equal a chain of them, with neighbours merged where that is faster.

    Two neighbours become one where that is exact (they act along different axes, or the second pads nothing), only the
    second adds a bias, and the one takes
    no more multiply-accumulates than the two; depthwise ones, whose time is that of reading and writing, also where
    it takes more, up to 27 taps.

    Args:
        convs: The chain, first applied first.  It is left alone; the result shares no memory with it.
    """
    chain = [_copied(conv) for conv in convs]
    position = 0
    while position < len(chain) - 1:
        pair = chain[position], chain[position + 1]
        geometry = _merged_geometry(*pair)
        if geometry is not None and _pays(*pair, geometry):
            chain[position : position + 2] = [_merged(*pair, geometry)]
            position = max(position - 1, 0)
        else:
            position += 1
    return chain


def _merged_geometry(first: Conv, second: Conv) -> Geometry | None:
    """Return where the product of two convolutions looks, or None where it is no convolution."""
    if first.groups != second.groups or first.bias is not None:
        return None
    try:
        return Affine.of_conv(first).layout.then(Affine.of_conv(second).layout).geometry
    except Unfoldable:
        return None


def _pays(first: Conv, second: Conv, geometry: Geometry) -> bool:
    depthwise = all(conv.in_channels == conv.out_channels == conv.groups for conv in (first, second))
    if depthwise and math.prod(geometry.kernel_size) <= MERGED_TAPS:
        return True
    # MACs for each output of the second: the first has computed as many more as the second steps over.
    before = first.weight.numel() * math.prod(second.stride) + second.weight.numel()
    after = second.out_channels * first.in_channels // first.groups * math.prod(geometry.kernel_size)
    return after <= before


def _merged(first: Conv, second: Conv, geometry: Geometry) -> Conv:
    weight = Affine.of_conv(first).then(Affine.of_conv(second)).weight
    return _filled(geometry, weight.to(second.weight.dtype), second, in_channels=first.in_channels)


def _copied(conv: Conv) -> Conv:
    return _filled(geometry_of(conv), conv.weight, conv, in_channels=conv.in_channels)


@torch.no_grad()
def _filled(geometry: Geometry, weight: Tensor, last: Conv, in_channels: int) -> Conv:
    conv = make_conv(
        geometry,
        in_channels,
        last.out_channels,
        groups=last.groups,
        bias=last.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    conv.weight.copy_(weight)
    if conv.bias is not None and last.bias is not None:
        conv.bias.copy_(last.bias)
    return conv
