"""Fused kernels: what networks compute between their large products, in fewer passes over memory.

* :func:`~leanconv.ops.kernels.apply.apply_conv_norm` computes a convolution, its batch norm, what is added and the
  activation, and decides by measured rules whether the fused form pays;
* :mod:`~leanconv.ops.kernels.depthwise_norm` is the fused form as operators of torch;
* :mod:`~leanconv.ops.kernels.depthwise_pair` computes both convolutions of a folded axial block at once, for inference;
* :mod:`~leanconv.ops.kernels.channels_last` rearranges images for it;
* :mod:`~leanconv.ops.kernels.library` builds and loads the compiled kernels.
"""

from leanconv.ops.kernels.apply import apply_conv_norm, arranged, plain_forms

__all__ = ["apply_conv_norm", "arranged", "plain_forms"]
