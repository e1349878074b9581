"""Atrous separable convolution: a dilated depthwise convolution, then a pointwise one.

Chen et al., 2018 (DeepLabv3+, arXiv 1802.02611), section 3.1.  Cost on an output of ``h x w``:
``h w d_in (k² + d_out)`` MACs whatever the rate, against ``h w d_in d_out k²``.

The paper and its TensorFlow release put batch norm and ReLU after both parts; a well-known PyTorch conversion
(VainF/DeepLabV3Plus-Pytorch) puts nothing between them.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.geometry import Padding, PaddingMode, Size
from leanconv.ops.separable import DepthwiseSeparableConv
from leanconv.ops.structured import OPERATORS, Conv


class AtrousSeparableConv(DepthwiseSeparableConv):
    """:class:`~leanconv.ops.separable.DepthwiseSeparableConv` that is dilated and may have norms and activations.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel_size: Taps of the depthwise part, an axis.
        stride: Step of the depthwise part.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance, the atrous rate.
        groups: Groups of the pointwise part.
        bias: Whether the pointwise part adds a bias.
        padding_mode: As in ``torch.nn.Conv2d``.
        depth_multiplier: Depthwise kernels for each input channel.
        norm_layer: Called with the channel count after each part, as in the paper; an operator with it is not linear
            and has no ``dense()``.
        activation: Called after each norm; used with ``norm_layer`` only.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 4, "out_channels": 6, "dilation": 3},
        {"in_channels": 4, "out_channels": 6, "groups": 2, "depth_multiplier": 2},
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Padding = "same",
        dilation: Size = 2,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        depth_multiplier: int = 1,
        norm_layer: Callable[[int], nn.Module] | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            depth_multiplier=depth_multiplier,
            device=device,
            dtype=dtype,
        )

        def after(channels: int) -> nn.Module:
            return nn.Sequential(norm_layer(channels), activation()) if norm_layer else nn.Identity()

        self.between, self.after = after(in_channels * depth_multiplier), after(out_channels)
        self.has_norm = norm_layer is not None

    def forward(self, x: Tensor) -> Tensor:
        """Filter each channel, then mix them."""
        y: Tensor = self.after(self.pointwise(self.between(self.depthwise(x))))
        return y

    def dense(self) -> Conv:
        """Return the equal dense convolution; see :meth:`~leanconv.ops.structured.StructuredConv.dense`.

        Raises:
            UserError: The operator holds norms and activations.
        """
        if self.has_norm:
            raise UserError("`norm_layer`: a separable convolution with norms inside equals no single convolution.")
        return super().dense()


@OPERATORS.register
class AtrousSeparableConv1d(AtrousSeparableConv):
    """:class:`AtrousSeparableConv` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class AtrousSeparableConv2d(AtrousSeparableConv):
    """:class:`AtrousSeparableConv` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class AtrousSeparableConv3d(AtrousSeparableConv):
    """:class:`AtrousSeparableConv` for ``(N, C, D, H, W)``."""

    dims = 3
