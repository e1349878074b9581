"""The protocol of every linear operator here: a structured factorisation of one dense N-d convolution.

``forward`` computes the factored form, :meth:`StructuredConv.dense` returns the plain convolution it equals and
:meth:`StructuredConv.from_dense` fits the structure to a trained convolution.  The dense equivalent of *any*
such operator is found by one probe: put a one at one output sample, and the gradient with respect to the input
is the kernel.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeAlias, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.geometry import Geometry
from leanconv.registry import Registry

Conv: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONV: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
#: The same as functions of an input and a weight.
CONV_FUNCTION: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

#: Input elements of one probe; wider operators are probed in several passes so that memory stays bounded.
PROBE_ELEMENTS = 2**25


def make_conv(
    geometry: Geometry,
    in_channels: int,
    out_channels: int,
    *,
    groups: int = 1,
    bias: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Conv:
    """Return the ``nn.ConvNd`` with this geometry."""
    return CONV[geometry.dims](
        in_channels,
        out_channels,
        geometry.kernel_size,  # type: ignore[arg-type]
        geometry.stride,  # type: ignore[arg-type]
        geometry.padding,  # type: ignore[arg-type]
        geometry.dilation,  # type: ignore[arg-type]
        groups,
        bias,
        geometry.padding_mode,
        device,
        dtype,
    )


def geometry_of(conv: Conv) -> Geometry:
    """Return the geometry of a plain convolution.

    Raises:
        UserError: ``conv`` is a transposed one, whose kernel means something else.
    """
    if isinstance(conv, nn.modules.conv._ConvTransposeNd):
        raise UserError(f"`conv` must be an nn.Conv1d, nn.Conv2d or nn.Conv3d, got {type(conv).__name__}.")
    dims = len(conv.kernel_size)
    return Geometry.of(
        dims,
        conv.kernel_size,
        conv.stride,
        cast("Any", conv.padding),
        conv.dilation,
        cast("Any", conv.padding_mode),
    )


def is_plain(module: nn.Module) -> TypeGuard[Conv]:
    """Whether a module computes a plain convolution: not a transposed one, nor a subclass with another forward pass."""
    kind = next((cls for cls in CONV.values() if isinstance(module, cls)), None)
    return (
        kind is not None and type(module).forward is kind.forward and type(module)._conv_forward is kind._conv_forward  # type: ignore[attr-defined]
    )


def ungrouped_weight(conv: Conv) -> Tensor:
    """Return a kernel over all input channels, ``(out_channels, in_channels, *kernel_size)``, zero between groups."""
    blocks = conv.weight.unflatten(0, (conv.groups, -1))
    groups, rows, columns, *kernel = blocks.shape
    full = blocks.new_zeros(groups, rows, groups, columns, *kernel)
    index = torch.arange(groups)
    full[index, :, index] = blocks
    weight: Tensor = full.flatten(2, 3).flatten(0, 1)
    return weight


def grouped_weight(weight: Tensor, groups: int) -> Tensor:
    """Return the part of a kernel over all input channels that a grouped convolution keeps."""
    blocks = weight.unflatten(1, (groups, -1)).unflatten(0, (groups, -1))
    kept: Tensor = blocks.diagonal(dim1=0, dim2=2).movedim(-1, 0).flatten(0, 1)
    return kept


class StructuredConv(nn.Module, ABC):
    """A linear, shift-equivariant operator that equals one dense convolution.

    Subclasses define ``dims`` and ``forward``, and set the attributes below in their constructor.

    Attributes:
        dims: Number of spatial axes (class attribute of the 1-D, 2-D and 3-D forms).
        in_channels: Channels read.
        out_channels: Channels written.
        groups: Groups of the dense equivalent.
        geometry: Kernel, stride, padding, dilation and padding mode of the dense equivalent.
        examples: Constructor arguments that show the operator; the shared property tests start from them.
        fit_options: Attributes that :meth:`from_dense` takes as options to fit an operator of the same structure.
    """

    dims: ClassVar[int]
    examples: ClassVar[tuple[dict[str, Any], ...]] = ()
    fit_options: ClassVar[tuple[str, ...]] = ()
    in_channels: int
    out_channels: int
    groups: int
    geometry: Geometry

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``."""

    @classmethod
    def from_dense(cls, conv: Conv, **options: Any) -> Self:
        """Return the best fit of this structure to ``conv``; exact where the structure can express it.

        Args:
            conv: A plain convolution of the same number of spatial axes.
            **options: What the structure leaves free (ranks, residuals, …).

        Raises:
            UserError: The structure has no closed-form fit, or cannot represent this convolution's shape.
        """
        raise UserError(f"`conv`: {cls.__name__} has no closed-form fit to a dense convolution.")

    @torch.no_grad()
    def dense(self) -> Conv:
        """Return the plain ``nn.ConvNd`` this operator equals, on its device and in its dtype.

        Raises:
            UserError: The operator's output at one sample depends on input outside its declared geometry.
        """
        weight, bias = probe(self)
        has_bias = bool(bias.any()) or any(name.endswith("bias") for name, _ in self.named_parameters())
        conv = make_conv(
            self.geometry,
            self.in_channels,
            self.out_channels,
            groups=self.groups,
            bias=has_bias,
            device=weight.device,
            dtype=weight.dtype,
        )
        conv.weight.copy_(weight)
        if conv.bias is not None:
            conv.bias.copy_(bias)
        return conv.train(self.training)


@torch.enable_grad()
def probe(operator: StructuredConv) -> tuple[Tensor, Tensor]:
    """Find the kernel and bias of the dense convolution a linear operator equals.

    One output sample whose receptive field touches no padding is chosen; the gradient of its channel ``o`` with
    respect to the input is row ``o`` of the kernel.  Channels of different groups read different inputs, so one
    pass serves a channel of every group, and stride and dilation need no special care.

    Returns:
        The kernel, shape ``(out_channels, in_channels / groups, *kernel_size)``, and the bias ``(out_channels,)``.

    Raises:
        UserError: The gradient is non-zero outside the operator's declared kernel.
    """
    geometry, groups = operator.geometry, operator.groups
    reference = next(iter(operator.parameters()), torch.empty(0))
    index = [math.ceil(front / stride) for (front, _), stride in zip(geometry.pads, geometry.stride, strict=True)]
    start = [i * s - front for i, s, (front, _) in zip(index, geometry.stride, geometry.pads, strict=True)]
    size = [b + e + back for b, e, (_, back) in zip(start, geometry.extent, geometry.pads, strict=True)]
    taps = tuple(slice(b, b + e, d) for b, e, d in zip(start, geometry.extent, geometry.dilation, strict=True))
    sample: tuple[slice | int, ...] = (slice(None), *index)
    rows = operator.out_channels // groups
    chunk = max(1, PROBE_ELEMENTS // (operator.in_channels * math.prod(size)))
    kernels = []
    bias = torch.empty(0)
    for first in range(0, rows, chunk):
        count = min(chunk, rows - first)
        shape = (count, operator.in_channels, *size)
        x = torch.zeros(shape, dtype=reference.dtype, device=reference.device, requires_grad=True)
        y = operator(x)
        one = torch.zeros_like(y)
        for row in range(count):
            one[row, first + row :: rows][sample] = 1
        (gradient,) = torch.autograd.grad(y, x, one)
        kernel = gradient[(slice(None), slice(None), *taps)]
        if torch.count_nonzero(kernel) != torch.count_nonzero(gradient):
            raise UserError(f"`operator`: {operator} reads input outside its declared {geometry}.")
        kernels.append(kernel)
        bias = y[0][sample].detach()
    weight = torch.cat(kernels).unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 1)
    return weight.detach(), bias


#: Every structured operator, by class name.  The shared property tests run over this registry.
OPERATORS: Registry[type[StructuredConv]] = Registry("operator")
