"""Composite kernels: two convolutions with nothing nonlinear in between, as one.

Decomposing the composite of a 3x3 convolution and the 1x1 convolution after it loses less than decomposing the 3x3
alone and folding the mix into the 1x1.  It turns the regular counterpart of a ShuffleNet V2 into a ShuffleNet V2 (our
reading of the experiment in He et al., 2019, arXiv 1910.09455).
"""

import copy
from typing import Any

import torch
from torch import nn

from leanconv.errors import UserError
from leanconv.ops.affine import Affine
from leanconv.ops.structured import CONV, Conv, geometry_of, make_conv

_CONVS = tuple(CONV.values())
_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@torch.no_grad()
def compose(first: Conv, pointwise: Conv) -> Conv:
    """Return the convolution that equals ``first`` followed by ``pointwise``.

    Its kernel is ``W[o, i] = sum_m W1[o, m] W3[m, i]``, its bias ``W1 b3 + b1``; borders agree for every padding mode.

    Args:
        first: Any plain convolution.
        pointwise: A convolution with one tap, stride 1 and no padding.

    Raises:
        UserError: ``pointwise`` is none, or does not read what ``first`` writes.
    """
    if (
        len(first.kernel_size) != len(pointwise.kernel_size)
        or first.out_channels != pointwise.in_channels
        or not is_pointwise(pointwise)
    ):
        raise UserError(f"`pointwise` must be a 1x1 convolution of {first.out_channels} channels, got {pointwise}.")
    joined = make_conv(
        geometry_of(first),
        first.in_channels,
        pointwise.out_channels,
        bias=first.bias is not None or pointwise.bias is not None,
        device=first.weight.device,
        dtype=first.weight.dtype,
    )
    composite = Affine.of_conv(first).then(Affine.of_conv(pointwise))
    joined.weight.copy_(composite.blocks(1)[0])
    if joined.bias is not None:
        joined.bias.zero_() if composite.bias is None else joined.bias.copy_(composite.bias)
    return joined.train(first.training)


def is_pointwise(conv: nn.Module) -> bool:
    """Whether a module is a convolution that maps every sample on its own."""
    if not isinstance(conv, _CONVS):
        return False
    geometry = geometry_of(conv)
    return {*geometry.kernel_size, *geometry.stride} == {1} and not any(map(any, geometry.pads))


def merge_pointwise(model: nn.Module) -> nn.Module:
    """Return a copy in which each convolution directly followed by a 1x1 convolution is one with it.

    Only neighbours in an ``nn.Sequential`` are known to follow each other; a batch norm between them, in evaluation
    mode a scale and a shift, is folded.  A 1x1 convolution before another is left alone, and so is a pair whose
    composite would take more parameters than a regular counterpart should: where the first one is grouped.

    Args:
        model: The network; it is not changed.

    Raises:
        UserError: No such pair was found.
    """
    model = copy.deepcopy(model)
    merged = 0
    for sequence in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        names = list(sequence._modules)
        position = 0
        while position < len(names) - 1:
            first: Any = sequence[position]
            norm: Any = sequence[position + 1]
            fold = _folds(first, norm)
            after = position + 1 + fold
            second: Any = sequence[after] if after < len(names) else None
            if _merges(first, second):
                if fold:
                    dims = len(first.kernel_size)
                    scaled = Affine.of_conv(first).then(Affine.of_norm(norm, dims))
                    first = scaled.conv().train(first.training)
                sequence._modules[names[position]] = compose(first, second)
                for name in names[position + 1 : after + 1]:
                    sequence._modules[name] = nn.Identity()
                merged += 1
            position = after
    if not merged:
        raise UserError("`model` has no convolution that is directly followed by a 1x1 convolution.")
    return model


def _folds(first: Any, norm: Any) -> bool:
    if not isinstance(first, _CONVS) or not isinstance(norm, _NORMS[len(first.kernel_size)]):
        return False
    return norm.running_var is not None and bool(norm.num_features == first.out_channels)


def _merges(first: Any, second: Any) -> bool:
    return (
        isinstance(first, _CONVS)
        and not is_pointwise(first)
        and first.groups == 1
        and is_pointwise(second)
        and len(first.kernel_size) == len(second.kernel_size)
        and second.in_channels == first.out_channels
    )
