"""Channel shuffle, and the grouped convolution it follows.

Zhang et al., 2017 (ShuffleNet, arXiv 1707.01083), section 3.1.  Stacked grouped convolutions never exchange channels
between groups.  The shuffle views the channels as a matrix ``groups x (C / groups)`` and transposes it, so that each
group of the next convolution reads from every group of the last one.

Cost: no parameters, no MACs, and one pass over memory (``2 C h w`` elements), which can be a quarter of a network's
time; see :mod:`leanconv.ops.shift` for the cheaper permutation.
"""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from leanconv.ops.fixed import ChannelPermutation
from leanconv.ops.geometry import Geometry, Padding, PaddingMode, Size, check_groups
from leanconv.ops.structured import (
    OPERATORS,
    Conv,
    StructuredConv,
    geometry_of,
    grouped_weight,
    make_conv,
    ungrouped_weight,
)


def channel_shuffle(x: Tensor, groups: int, *, inverse: bool = False) -> Tensor:
    """Transpose the channels of ``(N, C, *spatial)``, seen as a matrix of ``groups`` rows.

    A view of the input says where each channel comes from; putting them side by side is the only copy.

    Args:
        x: The input.
        groups: Groups; they divide the channels.
        inverse: Undo the shuffle instead, which is the shuffle with ``C / groups`` groups.  The released weights of
            ShuffleNet V1 (megvii-model/ShuffleNet-Series) were trained with this permutation.

    Raises:
        UserError: ``groups`` does not divide the channels.

    Example:
        >>> channel_shuffle(torch.arange(6).view(1, 6), groups=2)
        tensor([[0, 3, 1, 4, 2, 5]])
    """
    check_groups(groups, channels=x.shape[1])
    matrix: Tensor = x.unflatten(1, (-1, groups) if inverse else (groups, -1))
    return matrix.transpose(1, 2).flatten(1, 2)


class ChannelShuffle(ChannelPermutation):
    """:func:`channel_shuffle` as a module; use the 1-D, 2-D or 3-D form.  Its inverse has ``C / groups`` groups.

    Args:
        in_channels: Channels read and written.
        groups: Groups; they divide the channels.

    Raises:
        UserError: They do not.
    """

    @staticmethod
    def check(channels: int, groups: int) -> None:
        """Raise unless ``groups`` divides the channels."""
        check_groups(groups, in_channels=channels)

    @staticmethod
    def permute(x: Tensor, groups: int) -> Tensor:
        """Shuffle the channels."""
        return channel_shuffle(x, groups)


class GroupedShuffleConv(StructuredConv):
    """A grouped convolution whose outputs are shuffled; use the 1-D, 2-D or 3-D form.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel_size: Taps an axis.
        stride: Step an axis.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance an axis.
        groups: Groups of the convolution and of the shuffle.
        bias: Whether the convolution adds a bias.
        padding_mode: As in ``torch.nn.Conv2d``.
        inverse_shuffle: See :func:`channel_shuffle`.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Attributes:
        channel_groups: The argument ``groups``; the attribute of that name is the dense equivalent's.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    fit_options = ("channel_groups", "inverse_shuffle")
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": 1, "groups": 4},
        {"in_channels": 4, "out_channels": 12, "kernel_size": 1, "groups": 2, "inverse_shuffle": True},
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        inverse_shuffle: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        self.geometry = Geometry.of(self.dims, kernel_size, stride, padding, dilation, padding_mode)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups, self.channel_groups = 1, groups
        self.inverse_shuffle = inverse_shuffle
        self.conv = make_conv(
            self.geometry, in_channels, out_channels, groups=groups, bias=bias, device=device, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, then shuffle."""
        return channel_shuffle(self.conv(x), self.channel_groups, inverse=self.inverse_shuffle)

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, *, channel_groups: int = 1, inverse_shuffle: bool = False, **_: Any) -> Self:
        """Keep the weights that the structure has: the nearest such operator to ``conv``.

        Args:
            conv: The convolution to fit.
            channel_groups: The constructor's ``groups``; one group is exact.
            inverse_shuffle: As in the constructor.
        """
        geometry = geometry_of(conv)
        fitted = cls(
            conv.in_channels,
            conv.out_channels,
            geometry.kernel_size,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            channel_groups,
            conv.bias is not None,
            geometry.padding_mode,
            inverse_shuffle=inverse_shuffle,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )

        def before_the_shuffle(rows: Tensor) -> Tensor:
            return channel_shuffle(rows.unsqueeze(0), channel_groups, inverse=not inverse_shuffle).squeeze(0)

        fitted.conv.weight.copy_(grouped_weight(before_the_shuffle(ungrouped_weight(conv)), channel_groups))
        if conv.bias is not None and fitted.conv.bias is not None:
            fitted.conv.bias.copy_(before_the_shuffle(conv.bias))
        return fitted.train(conv.training)

    def extra_repr(self) -> str:
        """Return the arguments that the printed submodule does not show."""
        return f"inverse_shuffle={self.inverse_shuffle}"


@OPERATORS.register
class ChannelShuffle1d(ChannelShuffle):
    """:class:`ChannelShuffle` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class ChannelShuffle2d(ChannelShuffle):
    """:class:`ChannelShuffle` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class ChannelShuffle3d(ChannelShuffle):
    """:class:`ChannelShuffle` for ``(N, C, D, H, W)``."""

    dims = 3


@OPERATORS.register
class GroupedShuffleConv1d(GroupedShuffleConv):
    """:class:`GroupedShuffleConv` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class GroupedShuffleConv2d(GroupedShuffleConv):
    """:class:`GroupedShuffleConv` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class GroupedShuffleConv3d(GroupedShuffleConv):
    """:class:`GroupedShuffleConv` for ``(N, C, D, H, W)``."""

    dims = 3
