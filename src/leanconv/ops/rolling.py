"""Rolling pointwise convolution: every filter reads its own overlapping window of the channels.

Wang et al., 2021, arXiv 2009.05236 (3D receptive field, where it is RPW) and arXiv 2101.00745 (DSXplore, where it is
SCC).  With ``w = in_channels / groups``, filter ``f`` reads the ``w`` consecutive channels, circularly, from
``floor(f (1 - overlap) w) mod in_channels`` on.  Two such layers connect every output to every input where a grouped
pointwise convolution of the same size connects one group.

Cost on ``h x w`` samples: ``in_channels out_channels / groups`` parameters and so many MACs a sample, whatever the
overlap.  Filters whose windows coincide share one matrix product; where ``(1 - overlap) w`` is no whole number few
coincide, and neighbouring filters share a product over a wider window, with zeros and more MACs than counted here.
"""

import math
from fractions import Fraction
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.geometry import Geometry, Size, check_groups
from leanconv.ops.onednn import in_parts, pointwise
from leanconv.ops.shift import check_pointwise
from leanconv.ops.shuffle import channel_shuffle
from leanconv.ops.structured import CONV_FUNCTION, OPERATORS, Conv, StructuredConv, ungrouped_weight
from leanconv.ops.windowed import circular, inference_form, windowed_pointwise, windowed_pointwise_last

#: Filters that must share a window for a product of their own to pay, and those of a block with a wider window.
LEAST_ROWS, BLOCK_ROWS = 4, 16


def window_starts(in_channels: int, out_channels: int, groups: int, overlap: float) -> list[int]:
    """Return the first channel that each filter reads.

    The overlap is taken as the simple fraction it is meant to be (0.33 as 33/100), not as its binary rounding.
    """
    step = (1 - Fraction(overlap).limit_denominator(10_000)) * (in_channels // groups)
    return [math.floor(index * step) % in_channels for index in range(out_channels)]


class RollingPointwise(StructuredConv):
    """Rolling pointwise convolution; use the 1-D, 2-D or 3-D form.

    Inference reads the windows where they lie in memory or convolves them one by one, by the rule of
    :func:`~leanconv.ops.windowed.inference_form`; training, export and compilation put them side by side and take one
    grouped convolution.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        groups: How many times fewer channels a filter reads than there are; divides ``in_channels``.
        overlap: Share of a filter's window that the next filter reads too, at least 0 and below 1; without overlap the
            filters roll over the groups of a grouped convolution.
        stride: Step an axis.
        bias: Whether to add a bias (the release adds none).
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Attributes:
        weight: ``(out_channels, in_channels / groups)``, as in the release YukeWang96/DSXplore_IPDPS21.
        channel_groups: The argument ``groups``; the attribute of that name is the dense equivalent's.
        window_starts: First channel that each filter reads.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes divided by ``stride`` and rounded up.
    """

    _rows: Tensor
    _columns: Tensor
    _places: Tensor
    fit_options = ("channel_groups", "overlap")
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 8, "out_channels": 16},
        {"in_channels": 16, "out_channels": 20, "groups": 4, "overlap": 0.33, "bias": True},
        {"in_channels": 6, "out_channels": 13, "groups": 1, "overlap": 0.5},
        {"in_channels": 12, "out_channels": 9, "groups": 4, "overlap": 0.0},
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 2,
        overlap: float = 0.5,
        stride: Size = 1,
        bias: bool = False,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(1, out_channels=out_channels)
        check_groups(groups, in_channels=in_channels)
        if not 0 <= overlap < 1:
            raise UserError(f"`overlap` must be at least 0 and below 1, got {overlap}; 0.5 would work.")
        self.geometry = Geometry.of(self.dims, 1, stride)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups, self.channel_groups, self.overlap = 1, groups, overlap
        self.width = in_channels // groups
        self.window_starts = window_starts(in_channels, out_channels, groups, overlap)
        self.weight = nn.Parameter(torch.empty(out_channels, self.width, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        bound = 1 / math.sqrt(self.width)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        self._plan(device)

    def _plan(self, device: torch.device | str | None) -> None:
        """Gather the filters into blocks that share a window."""
        period = next((f for f in range(1, self.out_channels) if self.window_starts[f] == 0), self.out_channels)
        repeats = self.window_starts == (self.window_starts[:period] * self.out_channels)[: self.out_channels]
        self.cyclic = repeats and period * LEAST_ROWS <= self.out_channels
        if self.cyclic:
            self.blocks, self.block_width = self.window_starts[:period], self.width
            return
        # Neighbouring windows share a wider one, up to about a quarter wider, with zeros where a filter does not read.
        order = sorted(range(self.out_channels), key=self.window_starts.__getitem__)
        size = max(BLOCK_ROWS, self.out_channels // (4 * self.channel_groups))
        chunks = [order[first : first + size] for first in range(0, self.out_channels, size)]
        self.blocks = [self.window_starts[chunk[0]] for chunk in chunks]
        spans = [self.window_starts[chunk[-1]] - start for chunk, start in zip(chunks, self.blocks, strict=True)]
        self.block_width = min(self.in_channels, max(spans) + self.width)
        rows = torch.tensor([chunk + [self.out_channels] * (size - len(chunk)) for chunk in chunks], device=device)
        starts = torch.tensor([*self.window_starts, 0], device=device)[rows].unsqueeze(2)
        reads = torch.tensor(self.blocks, device=device).view(-1, 1, 1) + torch.arange(self.block_width, device=device)
        columns = ((reads - starts) % self.in_channels).clamp(max=self.width)
        places = torch.tensor(sorted(range(self.out_channels), key=order.__getitem__), device=device)
        self.register_buffer("_rows", rows.unsqueeze(2), persistent=False)
        self.register_buffer("_columns", columns, persistent=False)
        self.register_buffer("_places", places, persistent=False)

    def _weights(self) -> Tensor:
        """Return the weights by block, ``(blocks, rows, block_width)``."""
        if self.cyclic:
            missing = -self.out_channels % len(self.blocks)
            weight = F.pad(self.weight, (0, 0, 0, missing)) if missing else self.weight
            rows: Tensor = weight.unflatten(0, (-1, len(self.blocks)))
            return rows.transpose(0, 1).contiguous()  # products of strided rows are slower than this small copy
        return F.pad(self.weight, (0, 1, 0, 1))[self._rows, self._columns]

    def forward(self, x: Tensor) -> Tensor:
        """Mix the channels of each window."""
        if max(self.geometry.stride) > 1:
            steps: tuple[slice, ...] = tuple(slice(None, None, step) for step in self.geometry.stride)
            x = x[(slice(None), slice(None), *steps)]
        weight = self._weights()
        form = inference_form(x, self.weight, len(self.blocks))
        if form == "parts":
            y = in_parts(lambda part: self._window_by_window(part, weight), x, parts=1)  # the windows are small enough
        elif form == "first":
            samples = x.shape[2:].numel()
            starts = [start * samples for start in self.blocks]
            y = windowed_pointwise(x, weight, starts, interleave=self.cyclic)
        elif form == "last":
            y = windowed_pointwise_last(x, weight, self.blocks, interleave=self.cyclic)
        else:
            windows = torch.cat([circular(x, start, self.block_width) for start in self.blocks], 1)
            kernel = weight.flatten(0, 1).unflatten(1, (-1, *[1] * self.dims))
            y = CONV_FUNCTION[self.dims](windows, kernel, groups=len(self.blocks))
            if self.cyclic:
                y = channel_shuffle(y, len(self.blocks))
        y = y[:, : self.out_channels] if self.cyclic else y.index_select(1, self._places)
        return y if self.bias is None else y + self.bias.view(-1, *[1] * self.dims)

    def _window_by_window(self, x: Tensor, weight: Tensor) -> Tensor:
        windows = zip(self.blocks, weight.unbind(0), strict=True)
        outputs = [pointwise(circular(x, start, self.block_width), rows) for start, rows in windows]
        return torch.stack(outputs, 2 if self.cyclic else 1).flatten(1, 2)

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, *, channel_groups: int = 1, overlap: float = 0.5, **_: Any) -> Self:
        """Keep the weights that the structure has: the nearest such operator to ``conv``.

        Args:
            conv: A pointwise convolution.
            channel_groups: The constructor's ``groups``; one group is exact.
            overlap: As in the constructor.

        Raises:
            UserError: ``conv`` is not pointwise or is padded.
        """
        check_pointwise(conv)
        fitted = cls(
            conv.in_channels,
            conv.out_channels,
            channel_groups,
            overlap,
            conv.stride,
            conv.bias is not None,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        starts = torch.tensor(fitted.window_starts, device=conv.weight.device)
        read = (starts.unsqueeze(1) + torch.arange(fitted.width, device=starts.device)) % conv.in_channels
        fitted.weight.copy_(ungrouped_weight(conv).flatten(1).gather(1, read))
        if conv.bias is not None and fitted.bias is not None:
            fitted.bias.copy_(conv.bias)
        return fitted.train(conv.training)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        arguments = f"{self.in_channels}, {self.out_channels}, groups={self.channel_groups}, overlap={self.overlap}"
        return f"{arguments}, stride={self.geometry.stride}, bias={self.bias is not None}"


@OPERATORS.register
class RollingPointwise1d(RollingPointwise):
    """:class:`RollingPointwise` for ``(N, C, L)``."""

    dims = 1


@OPERATORS.register
class RollingPointwise2d(RollingPointwise):
    """:class:`RollingPointwise` for ``(N, C, H, W)``."""

    dims = 2


@OPERATORS.register
class RollingPointwise3d(RollingPointwise):
    """:class:`RollingPointwise` for ``(N, C, D, H, W)``."""

    dims = 3
