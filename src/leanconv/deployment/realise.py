"""Plain modules of torch for what folding computed, so that exporters and runtimes know them."""

import torch
from torch import Tensor, nn

from leanconv.ops.affine import Affine

#: By spatial axes, the channels' own not counted.
_NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@torch.no_grad()
def realised(affine: Affine) -> nn.Module:
    """Return a convolution, a linear layer, or a batch norm where samples are but scaled, in evaluation mode."""
    bias = affine.bias
    if affine.is_scale:
        norm = _NORMS[affine.layout.dims](
            affine.layout.in_channels, eps=0.0, device=affine.weight.device, dtype=affine.dtype
        )
        norm.weight.copy_(affine.weight.flatten())
        _fill(norm.bias, bias)
        return norm.eval()
    if affine.layout.dims:
        return affine.conv().eval()
    linear = nn.Linear(
        affine.layout.in_channels,
        affine.layout.out_channels,
        bias is not None,
        device=affine.weight.device,
        dtype=affine.dtype,
    )
    linear.weight.copy_(affine.blocks(1)[0])
    _fill(linear.bias, bias)
    return linear.eval()


def _fill(parameter: Tensor | None, values: Tensor | None) -> None:
    if parameter is not None and values is not None:
        parameter.copy_(values)
