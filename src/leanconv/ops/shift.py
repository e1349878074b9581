"""Channel shift: the channels move by half a group, so that groups mix at next to no cost.

Zhong et al., 2018, arXiv 1809.08458 (AddressNet).  In memory the shift is a different start address and a copy of half
a group; the paper measures it 12.7 times faster than channel shuffle at equal accuracy.  Each group of the next
convolution sees half of itself and half of its neighbour, so that with ``g`` groups every output sees every input after
2, 4 and 8 convolutions for ``g = 2, 4, 8``, where the shuffle needs two.

Cost: no parameters and no MACs.  :class:`ShiftedGroupedPointwise` folds the shift into the pointwise convolution that
follows, which then reads its groups where they lie, without a pass over memory, wherever that is faster than to shift.
"""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from leanconv.errors import UserError
from leanconv.ops.fixed import ChannelPermutation
from leanconv.ops.geometry import Geometry, Size, check_groups
from leanconv.ops.onednn import in_parts, pointwise
from leanconv.ops.structured import (
    OPERATORS,
    Conv,
    StructuredConv,
    geometry_of,
    grouped_weight,
    make_conv,
    ungrouped_weight,
)
from leanconv.ops.windowed import inference_form, shifted_pointwise, windowed_pointwise_last


def check_half_groups(groups: int, channels: int) -> None:
    """Check that half a group is a whole number of channels.

    Raises:
        UserError: It is not; the message names a number that works.
    """
    if groups < 1 or channels < 2 or channels % (2 * groups):
        halves = [d for d in range(1, channels // 2 + 1) if channels % (2 * d) == 0]
        near = min(halves, key=lambda half: abs(half - groups)) if halves else "an even number of channels"
        raise UserError(
            f"`groups` times two must divide the {channels} channels shifted, got {groups}; {near} would work."
        )


def channel_shift(x: Tensor, groups: int) -> Tensor:
    """Move the channels of ``(N, C, *spatial)`` by half a group to the left, circularly.

    Args:
        x: The input.
        groups: Groups; twice as many divide the channels.

    Raises:
        UserError: They do not.

    Example:
        >>> channel_shift(torch.arange(8).view(1, 8), groups=2)
        tensor([[2, 3, 4, 5, 6, 7, 0, 1]])
    """
    check_half_groups(groups, x.shape[1])
    half = x.shape[1] // (2 * groups)
    return torch.cat((x[:, half:], x[:, :half]), 1)


class ChannelShift(ChannelPermutation):
    """:func:`channel_shift` as a module; use the 1-D, 2-D or 3-D form.

    Args:
        in_channels: Channels read and written.
        groups: Groups; twice as many divide the channels.

    Raises:
        UserError: They do not.
    """

    @staticmethod
    def check(channels: int, groups: int) -> None:
        """Raise unless half a group is a whole number of channels."""
        check_half_groups(groups, channels)

    @staticmethod
    def permute(x: Tensor, groups: int) -> Tensor:
        """Shift the channels."""
        return channel_shift(x, groups)


class ShiftedGroupedPointwise(StructuredConv):
    """Channel shift, then a grouped pointwise convolution, as one operator; use the 1-D, 2-D or 3-D form.

    Inference reads the shifted groups where they lie in memory, or shifts a few images at a time, by the rule of
    :func:`~leanconv.ops.windowed.inference_form`; training, export and compilation shift, then convolve.

    Args:
        in_channels: Channels read; a multiple of ``2 groups``.
        out_channels: Channels written.
        groups: Groups of the convolution.
        stride: Step an axis.
        bias: Whether the convolution adds a bias.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Attributes:
        channel_groups: The argument ``groups``; the attribute of that name is the dense equivalent's.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes divided by ``stride`` and rounded up.
    """

    fit_options = ("channel_groups",)
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 8, "out_channels": 4, "groups": 4},
        {"in_channels": 12, "out_channels": 6, "groups": 2, "stride": 2, "bias": False},
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        stride: Size = 1,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(groups, out_channels=out_channels)
        check_half_groups(groups, in_channels)
        self.geometry = Geometry.of(self.dims, 1, stride)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups, self.channel_groups = 1, groups
        self.keeps_size = max(self.geometry.stride) == 1
        width = in_channels // groups
        self.starts = tuple(width // 2 + width * group for group in range(groups))
        self.conv = make_conv(
            self.geometry, in_channels, out_channels, groups=groups, bias=bias, device=device, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shift and convolve."""
        conv = self.conv
        weight = conv.weight
        form = inference_form(x, weight) if self.keeps_size else None
        if form is None:
            y: Tensor = conv(channel_shift(x, self.channel_groups))
            return y
        if form == "parts":
            groups = self.channel_groups
            return in_parts(lambda part: pointwise(channel_shift(part, groups), weight, conv.bias, groups), x)
        blocks = weight.reshape(len(self.starts), -1, 2 * self.starts[0])
        if form == "first":
            return shifted_pointwise(x, blocks, self.starts[0], conv.bias)
        return windowed_pointwise_last(x, blocks, self.starts, conv.bias)

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, *, channel_groups: int = 1, **_: Any) -> Self:
        """Keep the weights that the structure has: the nearest such operator to ``conv``.

        Args:
            conv: A pointwise convolution.
            channel_groups: The constructor's ``groups``; one group is exact.

        Raises:
            UserError: ``conv`` is not pointwise or is padded.
        """
        check_pointwise(conv)
        fitted = cls(
            conv.in_channels,
            conv.out_channels,
            channel_groups,
            conv.stride,
            conv.bias is not None,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        weight = ungrouped_weight(conv).roll(-fitted.starts[0], 1)
        fitted.conv.weight.copy_(grouped_weight(weight, channel_groups))
        if conv.bias is not None and fitted.conv.bias is not None:
            fitted.conv.bias.copy_(conv.bias)
        return fitted.train(conv.training)


def check_pointwise(conv: Conv) -> None:
    """Check that a convolution has a single tap and no padding.

    Raises:
        UserError: It has more.
    """
    geometry = geometry_of(conv)
    if max(geometry.extent) > 1 or any(map(any, geometry.pads)):
        raise UserError(f"`conv` must be pointwise, got {conv}; a kernel of 1 without padding would work.")


@OPERATORS.register
class ChannelShift1d(ChannelShift):
    """:class:`ChannelShift` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class ChannelShift2d(ChannelShift):
    """:class:`ChannelShift` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class ChannelShift3d(ChannelShift):
    """:class:`ChannelShift` for ``(N, C, D, H, W)``."""

    dims = 3


@OPERATORS.register
class ShiftedGroupedPointwise1d(ShiftedGroupedPointwise):
    """:class:`ShiftedGroupedPointwise` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class ShiftedGroupedPointwise2d(ShiftedGroupedPointwise):
    """:class:`ShiftedGroupedPointwise` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class ShiftedGroupedPointwise3d(ShiftedGroupedPointwise):
    """:class:`ShiftedGroupedPointwise` for ``(N, C, D, H, W)``."""

    dims = 3
