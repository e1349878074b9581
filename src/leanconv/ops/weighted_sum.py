"""Weighted sum of tensors, with a weight for each channel of each.

This is the grouped pointwise convolution of the tensors' shuffled concatenation, without the concatenation, the
shuffle and the slow kernel.  ``torch.utils.flop_counter`` counts no products of elements, so the sum is a custom
operator that says what the convolution would cost: ``t`` MACs for each output of ``t`` tensors.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula


def weighted_sum(tensors: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Return ``sum_i weight[:, i] * tensors[i]``, weights along the channels.

    Args:
        tensors: One or more of shape ``(N, C, *spatial)``.
        weight: Shape ``(C, len(tensors))``.
    """
    if torch.compiler.is_compiling():  # in a graph of its own the sum fuses with its neighbours
        return _sum(tensors, weight)
    result: Tensor = torch.ops.leanconv.weighted_sum(list(tensors), weight)
    return result


def _columns(weight: Tensor, like: Tensor) -> list[Tensor]:
    """Return one column of weights a tensor, shaped to be multiplied with it."""
    return [column.view(-1, *[1] * (like.dim() - 2)) for column in weight.to(like.dtype).unbind(1)]


def _sum(tensors: Sequence[Tensor], weight: Tensor) -> Tensor:
    first, *others = _columns(weight, tensors[0])
    total = tensors[0] * first
    for tensor, column in zip(tensors[1:], others, strict=True):
        total.addcmul_(tensor, column)
    return total


def _keep(ctx: Any, inputs: tuple[list[Tensor], Tensor], output: Tensor) -> None:  # noqa: ARG001 - torch passes it by name
    tensors, weight = inputs
    ctx.save_for_backward(weight, *tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[list[Tensor], Tensor]:
    weight, *tensors = ctx.saved_tensors
    axes = [axis for axis in range(gradient.dim()) if axis != 1]
    to_tensors = [gradient * column for column in _columns(weight, gradient)]
    to_weight = torch.stack([(gradient * tensor).sum(axes) for tensor in tensors], 1)
    return to_tensors, to_weight.to(weight.dtype)


torch.library.define("leanconv::weighted_sum", "(Tensor[] tensors, Tensor weight) -> Tensor")
torch.library.impl("leanconv::weighted_sum", "CompositeExplicitAutograd", _sum)
torch.library.register_autograd("leanconv::weighted_sum", _backward, setup_context=_keep)


@register_flop_formula(torch.ops.leanconv.weighted_sum)
def _flops(tensor_shapes: list[torch.Size], *_: Any, **__: Any) -> int:
    return 2 * sum(math.prod(shape) for shape in tensor_shapes)
