"""The algebra of convolutions with a bias: one after the other, and side by side, as one.

Batch norm in evaluation mode is a depthwise convolution with one tap, a residual is one whose weights are ones, and
average pooling is one whose taps are equal.  So two operations fold whatever is linear: :meth:`Affine.then` and
:meth:`Affine.plus`.  Both are exact at the borders too, or refused.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from leanconv.ops.geometry import Geometry, PaddingMode
from leanconv.ops.structured import Conv, geometry_of, make_conv

Axes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


class Unfoldable(Exception):  # noqa: N818 - not an error: the answer that two layers are not one
    """Two layers equal no single convolution; the message is a clause that says why."""


@dataclass(frozen=True)
class Layout:
    """What a convolution reads and writes, apart from its weights; one entry an axis, none for a linear layer.

    Attributes:
        in_channels: Channels read.
        out_channels: Channels written.
        groups: Groups of channels that do not mix.
        kernel: Taps.
        stride: Steps of the output in input samples.
        dilation: Distances of neighbouring taps.
        pads: Samples added in front and behind.
        padding_mode: What they hold.
    """

    in_channels: int
    out_channels: int
    groups: int
    kernel: Axes
    stride: Axes
    dilation: Axes
    pads: Pads
    padding_mode: PaddingMode = "zeros"

    @classmethod
    def pointwise(cls, channels: int, dims: int, stride: Axes | None = None) -> Self:
        """Return that of an operation on each sample of each channel."""
        ones = (1,) * dims
        return cls(channels, channels, channels, ones, stride or ones, ones, ((0, 0),) * dims)

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def extent(self) -> Axes:
        """Samples from the first tap to the last, both included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def padded(self) -> tuple[int, ...]:
        """The axes along which samples are added."""
        return tuple(axis for axis, pads in enumerate(self.pads) if any(pads))

    @property
    def geometry(self) -> Geometry | None:
        """The same as a module takes it, or None where no module does: more samples behind than in front."""
        padding: Axes | Literal["same"] = tuple(front for front, _ in self.pads)
        if any(front != back for front, back in self.pads):
            padding = "same"
            whole = Geometry(self.kernel, self.stride, padding, self.dilation, self.padding_mode)
            if max(self.stride) > 1 or whole.pads != self.pads:
                return None
        return Geometry(self.kernel, self.stride, padding, self.dilation, self.padding_mode)

    def acts_on(self, axis: int) -> bool:
        """Whether outputs are anything else than the samples at their own place, along one axis."""
        return (self.kernel[axis], self.stride[axis], self.pads[axis]) != (1, 1, (0, 0))

    def then(self, second: "Layout") -> "Layout":
        """Return the layout of the one convolution that equals this one followed by another.

        Raises:
            Unfoldable: There is none.
        """
        if self.dims != second.dims or self.out_channels != second.in_channels:
            raise Unfoldable("their shapes do not fit")
        pads = []
        for axis in range(self.dims):
            if self.acts_on(axis) and any(second.pads[axis]):
                raise Unfoldable("the second pads what the first has computed along the same axis")
            pads.append(self.pads[axis] if self.acts_on(axis) else second.pads[axis])
        units = self._units(second)
        reach = [
            (d * (k - 1) + s * e * (n - 1)) // unit
            for d, k, s, e, n, unit in zip(
                self.dilation, self.kernel, self.stride, second.dilation, second.kernel, units, strict=True
            )
        ]
        return Layout(
            self.in_channels,
            second.out_channels,
            math.gcd(self.groups, second.groups),
            tuple(steps + 1 for steps in reach),
            tuple(a * b for a, b in zip(self.stride, second.stride, strict=True)),
            units,
            tuple(pads),
            _common_mode(self, second),
        )._expressible()

    def plus(self, other: "Layout") -> "Layout":
        """Return the layout of the one convolution that equals the sum of this one and another.

        Raises:
            Unfoldable: There is none.
        """
        channels = (self.in_channels, self.out_channels)
        if (
            self.dims != other.dims
            or self.stride != other.stride
            or channels != (other.in_channels, other.out_channels)
        ):
            raise Unfoldable("their outputs differ in shape")
        slack = [[sum(pads) - e for pads, e in zip(x.pads, x.extent, strict=True)] for x in (self, other)]
        if slack[0] != slack[1]:
            raise Unfoldable("their outputs differ in shape")
        kernel, dilation, pads = [], [], []
        for axis in range(self.dims):
            both = [(x.kernel[axis], x.dilation[axis], x.pads[axis][0]) for x in (self, other)]
            first = min(-front for _, _, front in both)
            last = max(d * (k - 1) - front for k, d, front in both)
            unit = math.gcd(both[0][2] - both[1][2], *(d for k, d, _ in both if k > 1)) or 1
            kernel.append((last - first) // unit + 1)
            dilation.append(unit)
            pads.append((-first, slack[0][axis] + last + 1))
        return Layout(
            *channels,
            math.gcd(self.groups, other.groups),
            tuple(kernel),
            self.stride,
            tuple(dilation),
            tuple(pads),
            _common_mode(self, other),
        )._expressible()

    def _units(self, second: "Layout") -> Axes:
        """Return the distance of taps of the composition."""
        return tuple(
            math.gcd(d if k > 1 else 0, s * e if n > 1 else 0) or 1
            for d, k, s, e, n in zip(
                self.dilation, self.kernel, self.stride, second.dilation, second.kernel, strict=True
            )
        )

    def _expressible(self) -> Self:
        if self.geometry is None:
            raise Unfoldable("the one convolution would pad more behind than in front")
        return self


def _common_mode(a: Layout, b: Layout) -> PaddingMode:
    modes = {layout.padding_mode for layout in (a, b) if layout.padded}
    if len(modes) > 1:
        raise Unfoldable(f"they pad differently ({' and '.join(sorted(modes))})")
    return modes.pop() if modes else "zeros"


@dataclass(frozen=True)
class Affine:
    """A convolution with its weights in float64.

    Attributes:
        layout: What it reads and writes.
        weight: ``(out_channels, in_channels / groups, *kernel)``.
        bias: ``(out_channels,)``, or None where it is zero.
        dtype: Type the layer computes in.
    """

    layout: Layout
    weight: Tensor
    bias: Tensor | None
    dtype: torch.dtype

    @classmethod
    def of_conv(cls, conv: Conv) -> Self:
        """Read a plain convolution."""
        geometry = geometry_of(conv)
        layout = Layout(
            conv.in_channels,
            conv.out_channels,
            conv.groups,
            geometry.kernel_size,
            geometry.stride,
            geometry.dilation,
            geometry.pads,
            geometry.padding_mode,
        )
        return cls(layout, conv.weight.detach().double(), _detached(conv.bias), conv.weight.dtype)

    @classmethod
    def of_linear(cls, linear: nn.Linear) -> Self:
        """Read a linear layer: a convolution without spatial axes."""
        layout = Layout(linear.in_features, linear.out_features, 1, (), (), (), ())
        return cls(layout, linear.weight.detach().double(), _detached(linear.bias), linear.weight.dtype)

    @classmethod
    def of_norm(cls, norm: nn.Module, dims: int) -> Self:
        """Read a batch norm with running statistics, as it is in evaluation mode, on so many spatial axes."""
        mean, variance = cast("Tensor", norm.running_mean).double(), cast("Tensor", norm.running_var).double()
        scale = (variance + cast("float", norm.eps)).rsqrt()
        weight, bias = _detached(cast("Any", norm.weight)), _detached(cast("Any", norm.bias))
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        dtype = cast("Tensor", norm.running_var if weight is None else norm.weight).dtype
        return cls(Layout.pointwise(len(scale), dims), scale.view(-1, 1, *[1] * dims), _present(shift), dtype)

    @classmethod
    def identity(cls, like: "Affine", channels: int, stride: Axes | None = None) -> Self:
        """Return what passes on every sample, or every so manieth, of as many channels, on another one's axes."""
        dims = like.layout.dims
        ones = like.weight.new_ones(channels, 1, *[1] * dims)
        return cls(Layout.pointwise(channels, dims, stride), ones, None, like.dtype)

    def mean(self, kernel: Axes, stride: Axes, padding: Axes, divisor: int | None) -> "Affine":
        """Return average pooling of the channels of an identity, zeros that are padded counted in."""
        pads = tuple((pad, pad) for pad in padding)
        layout = replace(self.layout, kernel=kernel, stride=stride, pads=pads)
        weight = self.weight.expand(-1, 1, *kernel) / (divisor or math.prod(kernel))
        return replace(self, layout=layout, weight=weight)

    def blocks(self, groups: int) -> Tensor:
        """Return the weights of fewer groups, ``(groups, out / groups, in / groups, *kernel)``, zero between its own.

        Args:
            groups: A divisor of its own groups.
        """
        share = self.layout.groups // groups
        own = self.weight.unflatten(0, (groups, share, -1))
        _, _, rows, columns, *kernel = own.shape
        full = own.new_zeros(groups, share, rows, share, columns, *kernel)
        index = torch.arange(share, device=own.device)
        full[:, index, :, index] = own.movedim(1, 0)
        blocks: Tensor = full.flatten(3, 4).flatten(1, 2)
        return blocks

    def then(self, second: "Affine") -> "Affine":
        """Return the one convolution that equals this one followed by another.

        Its bias is that of samples that no zero padding of the second reaches: see :meth:`shift_ends_at_border`.

        Raises:
            Unfoldable: There is none.
        """
        layout = self.layout.then(second.layout)
        groups = layout.groups
        inner, outer = self.blocks(groups), second.blocks(groups)
        weight = inner.new_zeros(groups, outer.shape[1], inner.shape[2], *layout.kernel)
        for taps in itertools.product(*map(range, second.layout.kernel)):
            tap_of_second: Any = (..., *taps)
            window: Any = tuple(
                slice(tap * s * e // unit, tap * s * e // unit + d * (k - 1) // unit + 1, max(1, d // unit))
                for tap, s, e, unit, d, k in zip(
                    taps,
                    self.layout.stride,
                    second.layout.dilation,
                    layout.dilation,
                    self.layout.dilation,
                    self.layout.kernel,
                    strict=True,
                )
            )
            weight[(..., *window)] += torch.einsum("gom,gmi...->goi...", outer[tap_of_second], inner)
        bias = second.bias
        if self.bias is not None:
            mix = outer.flatten(3).sum(3) if second.layout.dims else outer
            passed = torch.einsum("gom,gm->go", mix, self.bias.unflatten(0, (groups, -1))).flatten()
            bias = passed if bias is None else bias + passed
        return Affine(layout, weight.flatten(0, 1), bias, second.dtype)

    def shift_ends_at_border(self, second: "Affine") -> bool:
        """Whether the bias reaches the second through zero padding, so that at borders less of it arrives."""
        return self.bias is not None and second.layout.padding_mode == "zeros" and bool(second.layout.padded)

    def plus(self, other: "Affine") -> "Affine":
        """Return the one convolution that equals the sum of this one and another.

        Raises:
            Unfoldable: There is none.
        """
        layout = self.layout.plus(other.layout)
        weight = self.weight.new_zeros(
            layout.groups, layout.out_channels // layout.groups, layout.in_channels // layout.groups, *layout.kernel
        )
        for part in (self, other):
            window: Any = tuple(
                slice((front - own[0]) // unit, (front - own[0] + d * (k - 1)) // unit + 1, max(1, d // unit))
                for (front, _), own, unit, d, k in zip(
                    layout.pads,
                    part.layout.pads,
                    layout.dilation,
                    part.layout.dilation,
                    part.layout.kernel,
                    strict=True,
                )
            )
            weight[(..., *window)] += part.blocks(layout.groups)
        biases = [part.bias for part in (self, other) if part.bias is not None]
        bias = torch.stack(biases).sum(0) if biases else None
        return Affine(layout, weight.flatten(0, 1), bias, self.dtype)

    @property
    def is_scale(self) -> bool:
        """Whether each sample is only multiplied and shifted, by numbers of its channel."""
        layout = self.layout
        return layout.groups == layout.in_channels == layout.out_channels and not any(
            map(layout.acts_on, range(layout.dims))
        )

    def without_bias(self) -> "Affine":
        """Return the linear part."""
        return replace(self, bias=None)

    @torch.no_grad()
    def conv(self) -> Conv:
        """Return the plain convolution, in the type it computes in."""
        geometry = self.layout.geometry
        assert geometry is not None
        conv = make_conv(
            geometry,
            self.layout.in_channels,
            self.layout.out_channels,
            groups=self.layout.groups,
            bias=self.bias is not None,
            device=self.weight.device,
            dtype=self.dtype,
        )
        conv.weight.copy_(self.weight)
        if conv.bias is not None and self.bias is not None:
            conv.bias.copy_(self.bias)
        return conv


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else _present(tensor.detach().double())


def _present(bias: Tensor) -> Tensor | None:
    return bias if bias.is_meta or bias.any() else None
