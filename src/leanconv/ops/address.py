"""Address shift and shortcut shift: moving an image by reading it from another address.

Zhong et al., 2018, arXiv 1809.08458 (AddressNet).  A network without spatial convolutions sees its neighbourhood by
shifting the four quarters of its channels left, up, right and down.  As the authors have it nothing is padded: each
quarter is read at an offset of 1, W, -1 or -W elements, so that a row runs on into its neighbour and the border of a
channel holds values of the next one (with this order of directions never of another image).  The usual shift fills
borders with zeros; it differs at borders alone.

Cost: no parameters and no MACs.  :class:`AddressPointwise2d` folds the shift of channels and addresses into the grouped
pointwise convolution that follows: no pass over memory.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from leanconv.errors import UserError
from leanconv.ops.fixed import FixedConv
from leanconv.ops.geometry import Geometry, Size, check_groups
from leanconv.ops.onednn import in_parts, pointwise
from leanconv.ops.shift import check_half_groups
from leanconv.ops.structured import (
    OPERATORS,
    Conv,
    StructuredConv,
    geometry_of,
    grouped_weight,
    make_conv,
    ungrouped_weight,
)
from leanconv.ops.windowed import circular, inference_form, windowed_pointwise

#: What a sample shifted in from outside holds: whatever lies next in memory, or zero.
Border = Literal["flat", "zeros"]

#: Rows and columns from an output sample to the input sample it takes, by quarter: left, up, right, down.
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def check_address(channels: int, border: str) -> None:
    """Check the arguments of an address shift.

    Raises:
        UserError: The channels have no quarters or the border is unknown.
    """
    if channels < 4 or channels % 4:
        raise UserError(
            f"`in_channels` must be a multiple of 4, one part for each direction, got {channels}; "
            f"{max(4, channels // 4 * 4)} would work."
        )
    if border not in get_args(Border):
        raise UserError(f"`border` must be 'flat' or 'zeros', got {border!r}.")


def address_shift(x: Tensor, border: Border = "flat", *, first_channel: int = 0, stride: int = 1) -> Tensor:
    """Shift the quarters of the channels by one sample left, up, right and down.

    Written with slices, padding and ``cat``, so that it exports without scatter.

    Args:
        x: ``(N, C, H, W)``; ``C`` is a multiple of four.
        border: ``"flat"`` takes what lies next in memory, circularly within an image; ``"zeros"`` fills with zeros.
        first_channel: Where the first quarter begins; the channels wrap around, as after a channel shift.
        stride: Keep every so manieth sample of the result.

    Returns:
        ``(N, C, H/stride, W/stride)``, sizes rounded up.

    Raises:
        UserError: ``C`` is no multiple of four or ``border`` is unknown.
    """
    _, channels, height, width = x.shape
    check_address(channels, border)
    quarter = channels // 4
    parts = []
    for index, (down, right) in enumerate(DIRECTIONS):
        first = first_channel + index * quarter
        if border == "flat":
            start = first * height * width + down * width + right
            part = circular(x.flatten(1), start, quarter * height * width).unflatten(1, (quarter, height, width))
        else:
            part = _moved(circular(x, first, quarter), down, right)
        parts.append(part[:, :, ::stride, ::stride])
    return torch.cat(parts, 1)


def _moved(x: Tensor, down: int, right: int) -> Tensor:
    """Take each sample from its neighbour along one axis, and zero at the border."""
    if not torch.compiler.is_exporting():
        # A negative amount of padding crops the side that moves out.
        return F.pad(x, (-right, right, -down, down))
    # Runtimes put pieces together faster than they pad rows: ONNX Runtime in two thirds of the time on 16x240x16x16.
    axis, step = (3, right) if right else (2, down)
    zeros = torch.zeros_like(x.narrow(axis, 0, 1))
    kept = x.narrow(axis, max(step, 0), x.shape[axis] - 1)
    return torch.cat((kept, zeros) if step > 0 else (zeros, kept), axis)


def shortcut_shift(x: Tensor, y: Tensor) -> Tensor:
    """Put two tensors side by side along the channels, where a residual network would add them.

    The paper has two modules write into the halves of one buffer; in PyTorch this is one concatenation.
    """
    return torch.cat((x, y), 1)


@OPERATORS.register
class AddressShift2d(FixedConv):
    """:func:`address_shift` as a module.

    Args:
        in_channels: Channels read and written, a multiple of four.
        border: As in :func:`address_shift`; with ``"flat"`` there is no ``dense()``.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, H, W)`` to the same.
    """

    dims = 2
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"in_channels": 8, "border": "zeros"},)

    def __init__(self, in_channels: int, border: Border = "flat") -> None:
        super().__init__()
        check_address(in_channels, border)
        self.in_channels = self.out_channels = self.groups = in_channels
        self.border: Border = border
        self.geometry = Geometry.of(2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shift each quarter of the channels."""
        return address_shift(x, self.border)

    def dense(self) -> Conv:
        """Return the equal dense convolution; see :meth:`~leanconv.ops.structured.StructuredConv.dense`.

        Raises:
            UserError: The borders are flat.
        """
        _refuse_flat(self.border)
        return super().dense()

    @classmethod
    def forms(cls, in_channels: int) -> Iterator[Self]:
        """Yield the shift that fills with zeros, if the channels have quarters."""
        if in_channels % 4 == 0:
            yield cls(in_channels, "zeros")

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"{self.in_channels}, border={self.border!r}"


@OPERATORS.register
class AddressPointwise2d(StructuredConv):
    """Channel shift, address shift and a grouped pointwise convolution as one operator.

    It is the second half of the paper's module.  Inference reads each group at its own address in memory; training,
    export and compilation shift, then convolve.

    Args:
        in_channels: Channels read; a multiple of 4, of ``groups`` and, with ``channel_shift``, of ``2 groups``.
        out_channels: Channels written.
        groups: Groups of the convolution (4 in the paper, one for each direction).
        stride: Step of the output.
        bias: Whether the convolution adds a bias.
        border: As in :func:`address_shift`; with ``"flat"`` there is no ``dense()``.
        channel_shift: Whether the channels move by half a group first, as in the paper's module.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Attributes:
        channel_groups: The argument ``groups``; the attribute of that name is the dense equivalent's.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, H/stride, W/stride)``, sizes rounded up.
    """

    dims = 2
    fit_options = ("channel_groups", "channel_shift")
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 8, "out_channels": 4, "border": "zeros"},
        {"in_channels": 16, "out_channels": 8, "groups": 8, "border": "zeros", "stride": 2},
        {"in_channels": 4, "out_channels": 4, "groups": 4, "border": "zeros", "channel_shift": False},
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 4,
        stride: Size = 1,
        bias: bool = True,
        *,
        border: Border = "flat",
        channel_shift: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        check_address(in_channels, border)
        if channel_shift:
            check_half_groups(groups, in_channels)
        self.geometry = Geometry.of(2, 3, stride, 1)
        if len(set(self.geometry.stride)) > 1:
            raise UserError(f"`stride` must be the same along both axes, got {self.geometry.stride}.")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups, self.channel_groups = 1, groups
        self.border: Border = border
        self.channel_shift = channel_shift
        self.first_channel = in_channels // (2 * groups) if channel_shift else 0
        pointwise = Geometry.of(2, 1)
        self.conv = make_conv(
            pointwise, in_channels, out_channels, groups=groups, bias=bias, device=device, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shift and convolve."""
        conv, stride = self.conv, self.geometry.stride[0]
        form = inference_form(x, conv.weight) if stride == 1 else None
        # Each group must lie within one quarter, so that one address serves all it reads.
        if form == "first" and self.channel_groups % 4 == 0:
            return self._read_in_place(x)

        def shifted(images: Tensor) -> Tensor:
            return address_shift(images, self.border, first_channel=self.first_channel, stride=stride)

        if form == "parts":
            return in_parts(lambda part: pointwise(shifted(part), conv.weight, conv.bias, self.channel_groups), x)
        y: Tensor = conv(shifted(x))
        return y

    def _read_in_place(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        groups = self.channel_groups
        starts = []
        for group in range(groups):
            down, right = DIRECTIONS[group * 4 // groups]
            channel = self.first_channel + group * (self.in_channels // groups)
            starts.append(channel * height * width + down * width + right)
        blocks = self.conv.weight.flatten(1).unflatten(0, (groups, -1))
        y = windowed_pointwise(x, blocks, starts)
        if self.border == "zeros":
            left, up, right_part, down_part = y.unflatten(1, (4, -1)).unbind(1)
            for edge in (left[..., -1], up[..., -1, :], right_part[..., 0], down_part[..., 0, :]):
                edge.zero_()
        return y if self.conv.bias is None else y.add_(self.conv.bias.view(-1, 1, 1))

    def dense(self) -> Conv:
        """Return the equal dense convolution; see :meth:`~leanconv.ops.structured.StructuredConv.dense`.

        Raises:
            UserError: The borders are flat.
        """
        _refuse_flat(self.border)
        return super().dense()

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, *, channel_groups: int = 4, channel_shift: bool = True, **_: Any) -> Self:
        """Keep the weights that the structure has: the nearest such operator to ``conv``, with zeros at borders.

        Args:
            conv: A 3x3 convolution, padded by one, zeros outside.
            channel_groups: The constructor's ``groups``.
            channel_shift: As in the constructor.

        Raises:
            UserError: ``conv`` has another kernel, padding or dilation.
        """
        if geometry_of(conv) != Geometry.of(2, 3, conv.stride, 1):
            raise UserError(f"`conv` must have 3 x 3 neighbouring taps and padding 1 with zeros, got {conv}.")
        fitted = cls(
            conv.in_channels,
            conv.out_channels,
            channel_groups,
            conv.stride,
            conv.bias is not None,
            border="zeros",
            channel_shift=channel_shift,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        quarters = ungrouped_weight(conv).roll(-fitted.first_channel, 1).unflatten(1, (4, -1))
        taps = [quarters[:, i, :, 1 + down, 1 + right] for i, (down, right) in enumerate(DIRECTIONS)]
        weight = grouped_weight(torch.cat(taps, 1), channel_groups)
        fitted.conv.weight.copy_(weight[..., None, None])
        if conv.bias is not None and fitted.conv.bias is not None:
            fitted.conv.bias.copy_(conv.bias)
        return fitted.train(conv.training)

    def extra_repr(self) -> str:
        """Return the arguments that the printed submodule does not show."""
        return f"stride={self.geometry.stride[0]}, border={self.border!r}, channel_shift={self.channel_shift}"


def _refuse_flat(border: Border) -> None:
    if border == "flat":
        raise UserError("`border='flat'` reads across borders as no convolution does; `border='zeros'` would work.")
