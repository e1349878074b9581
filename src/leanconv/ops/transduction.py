"""Transduction: a factorised convolution trained on images made one for clips, frame for frame the same at first.

Kossaifi et al., CVPR 2020 (arXiv 1906.06196): a factor for the new axis joins those that are there.  Starting it as a
one at the centre tap makes the new operator exactly the old one on every frame; for Tucker and tensor trains, which the
paper's public code does not cover or not exactly, this start is our reading.
"""

import torch
from torch import nn

from leanconv.errors import UserError
from leanconv.ops.cp import CPConv1d, CPConv2d, CPConv3d
from leanconv.ops.factorized import FactorizedConv
from leanconv.ops.geometry import to_tuple
from leanconv.ops.tensor_train import TensorTrainConv1d, TensorTrainConv2d, TensorTrainConv3d
from leanconv.ops.tucker import TuckerConv1d, TuckerConv2d, TuckerConv3d

_NEXT: dict[type[FactorizedConv], type[FactorizedConv]] = {
    CPConv1d: CPConv2d,
    CPConv2d: CPConv3d,
    TensorTrainConv1d: TensorTrainConv2d,
    TensorTrainConv2d: TensorTrainConv3d,
    TuckerConv1d: TuckerConv2d,
    TuckerConv2d: TuckerConv3d,
}


@torch.no_grad()
def transduce(operator: FactorizedConv, kernel_size: int, *, stride: int = 1, dilation: int = 1) -> FactorizedConv:
    """Return an operator with one more axis, in front of the others, that acts on each frame as ``operator`` does.

    The new axis is padded by half its extent, so output ``i`` is the old operator's on frame ``i * stride``.  The new
    factor is a depthwise filter for each term (CP), a full convolution at the first rank (tensor train), or one filter
    shared by all channels (Tucker, whose new mode has rank 1).

    The paper trains the new factor first and then everything::

        video = transduce(image, kernel_size=3)
        video.requires_grad_(False)
        video.axis_conv(0).requires_grad_(True)  # train this, then video.requires_grad_(True)

    Args:
        operator: A 1-D or 2-D :class:`CPConv`, :class:`TuckerConv` or :class:`TensorTrainConv`; it is left alone.
        kernel_size: Taps along the new axis, odd and at least 3.
        stride: Step along the new axis.
        dilation: Tap distance along the new axis.

    Returns:
        The operator of the same kind for ``(N, C, frames, *spatial)``, all of it trainable.

    Raises:
        UserError: ``operator`` cannot have one more axis, or a number is out of range.
    """
    if type(operator) not in _NEXT:
        known = ", ".join(kind.__name__ for kind in _NEXT)
        raise UserError(f"`operator` must be one of {known}, got {type(operator).__name__}.")
    for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
        to_tuple(value, 1, name)
    if kernel_size % 2 == 0 or kernel_size < 3:
        raise UserError(
            f"`kernel_size` must be odd and at least 3, got {kernel_size}; {max(3, kernel_size + 1)} would work."
        )
    old = operator.geometry
    last = operator.convolutions()[-1]
    larger = _NEXT[type(operator)](
        operator.in_channels,
        operator.out_channels,
        (kernel_size, *old.kernel_size),
        (stride, *old.stride),
        "same" if old.padding == "same" else (dilation * (kernel_size // 2), *old.padding),
        (dilation, *old.dilation),
        operator.groups,
        last.bias is not None,
        old.padding_mode,
        rank=operator._rank_with_axis(),
        device=last.weight.device,
        dtype=last.weight.dtype,
    )
    new = larger.axis_conv(0)
    nn.init.dirac_(new.weight, new.groups)
    kept = [conv for conv in larger.convolutions() if conv is not new]
    for conv, factor in zip(kept, operator.convolutions(), strict=True):
        conv.weight.copy_(factor.weight.reshape(conv.weight.shape))
        if conv.bias is not None and factor.bias is not None:
            conv.bias.copy_(factor.bias)
    return larger.train(operator.training)
