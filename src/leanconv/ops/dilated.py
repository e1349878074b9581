"""Dilated (atrous) convolution: taps a distance apart, for a wide view at the cost of a narrow one.

Yu and Koltun, 2015, arXiv 1511.07122.  ``k`` taps at distance ``d`` span ``d (k - 1) + 1`` samples; parameters and MACs
are those of ``d = 1``.
"""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.geometry import Geometry, Padding, PaddingMode, Size, check_groups
from leanconv.ops.structured import OPERATORS, Conv, StructuredConv, geometry_of, make_conv


class DilatedConv(StructuredConv):
    """A convolution dilated by two unless said otherwise, that keeps the size; use the 1-D, 2-D or 3-D form.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel_size: Taps an axis.
        stride: Step an axis.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance an axis.
        groups: Groups of channels.
        bias: Whether to add a bias.
        padding_mode: As in ``torch.nn.Conv2d``.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 4, "out_channels": 4, "dilation": 2},
        {"in_channels": 4, "out_channels": 8, "dilation": 3, "groups": 2},
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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        self.geometry = Geometry.of(self.dims, kernel_size, stride, padding, dilation, padding_mode)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.conv = make_conv(
            self.geometry, in_channels, out_channels, groups=groups, bias=bias, device=device, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        y: Tensor = self.conv(x)
        return y

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, **_: Any) -> Self:
        """Return ``conv`` itself in this form; always exact."""
        geometry = geometry_of(conv)
        fitted = cls(
            conv.in_channels,
            conv.out_channels,
            geometry.kernel_size,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            conv.groups,
            conv.bias is not None,
            geometry.padding_mode,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        fitted.conv.load_state_dict(conv.state_dict())
        return fitted.train(conv.training)


@torch.no_grad()
def identity_(weight: Tensor, classes: int, noise: float = 0.01) -> Tensor:
    """Fill a kernel in place so that its convolution passes each class on, plus a little noise.

    Yu and Koltun, section 3, equations 4 and 5: output ``b`` averages the middle taps of the inputs of its class,
    scaled by ``classes / out_channels``, so that a stack of such layers that ends at ``classes`` channels is the
    identity.  The noise is relative to that scale; that, and its size, are our reading.

    Args:
        weight: Shape ``(out_channels, in_channels, *kernel_size)``, odd kernel sizes; both channel counts are
            multiples of ``classes``, and neighbouring channels belong to one class.
        classes: Channels of the first input and the last output.
        noise: Standard deviation of the other weights, relative to the scale.

    Returns:
        ``weight``.

    Raises:
        UserError: The kernel size is even or ``classes`` does not divide the channels.
    """
    outs, ins, *kernel = weight.shape
    check_groups(classes, out_channels=outs, in_channels=ins)
    if any(taps % 2 == 0 for taps in kernel):
        raise UserError(f"`weight` must have odd kernel sizes, got {tuple(kernel)}; (3, 3) would work.")
    scale = classes / outs
    nn.init.normal_(weight, std=noise * scale)
    same = torch.arange(outs).unsqueeze(1) // (outs // classes) == torch.arange(ins) // (ins // classes)
    middle = weight
    for taps in kernel:
        middle = middle.select(2, taps // 2)
    middle.copy_(torch.where(same.to(weight.device), scale, middle))
    return weight


@OPERATORS.register
class DilatedConv1d(DilatedConv):
    """:class:`DilatedConv` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class DilatedConv2d(DilatedConv):
    """:class:`DilatedConv` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class DilatedConv3d(DilatedConv):
    """:class:`DilatedConv` for ``(N, C, D, H, W)``."""

    dims = 3
