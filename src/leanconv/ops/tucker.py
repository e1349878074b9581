"""Convolution with its kernel in Tucker form: pointwise, a small dense convolution, pointwise.

Kossaifi et al., CVPR 2020 (arXiv 1906.06196); with whole spatial modes, the usual choice, Kim et al., 2016 (arXiv
1511.06530).  The kernel of a group is a core ``(R_in, R_out, R_1, …, R_N)`` times one factor for each mode.

Cost for each output sample, stride 1, one group and whole spatial modes: ``C R_in + R_in R_out prod(k) + R_out T`` MACs
and parameters.  A mode whose rank is its size is *whole*: the core can express the product with its factor, which is
left out.
"""

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.linalg import truncated_svd
from leanconv.ops.factorized import FactorizedConv, bond_norms, bond_ranks
from leanconv.ops.geometry import Geometry, Size, to_tuple
from leanconv.ops.structured import OPERATORS, Conv, make_conv

#: Rounds of higher-order orthogonal iteration, and the gain (relative squared error) that makes another worth while.
ROUNDS, GAIN = 10, 1e-5


class SharedAxisConv(nn.Module):
    """A convolution along one axis that applies the same few filters to every channel.

    Args:
        geometry: Where it looks.
        filters: Filters; channel ``c`` becomes channels ``c * filters`` and following.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.
    """

    def __init__(
        self,
        geometry: Geometry,
        filters: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.conv = make_conv(geometry, 1, filters, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, *spatial)`` to ``(N, C * filters, *spatial')``, with or without the ``N``."""
        channels = -1 - len(self.conv.kernel_size)
        y: Tensor = self.conv(x.unsqueeze(channels).flatten(0, channels - 1))
        return y.reshape(*x.shape[:channels], x.shape[channels] * y.shape[1], *y.shape[2:])


class TuckerConv(FactorizedConv):
    """Pointwise convolution to fewer channels, dense convolution among them, pointwise convolution; use the N-d forms.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel_size: Taps an axis.
        stride: Step an axis.
        padding: Samples added an axis, ``"same"`` or ``"valid"``.
        dilation: Tap distance an axis.
        groups: Groups, each with a core and channel factors of its own; they share the factors of spatial modes.
        bias: Whether the last convolution adds a bias.
        padding_mode: As in ``torch.nn.Conv2d``.
        rank: Rank of the inputs and of the outputs of a group: one number for both, or one each.  Spatial modes are
            whole unless their ranks follow, one an axis.  Ranks above the size of the mode are clamped to it.
        device: As in ``torch.nn``.
        dtype: As in ``torch.nn``.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial')``, sizes as ``nn.ConvNd`` gives them.
    """

    rank: tuple[int, ...]
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "rank": 2},
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "rank": (1, 2), "bias": False},
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": "same", "rank": (4, 3)},
    )

    def _clamped(self, rank: Size) -> tuple[int, ...]:
        shape = self._shape
        if isinstance(rank, tuple | list) and len(rank) == len(shape):
            wanted = to_tuple(tuple(rank), len(shape), "rank")
        else:
            wanted = (*to_tuple(rank, 2, "rank"), *self.geometry.kernel_size)
        return tuple(min(pair) for pair in zip(wanted, shape, strict=True))

    @property
    def _factored(self) -> list[int]:
        """Modes with a factor: 0 for the inputs, 1 for the outputs, 2 and following for the axes."""
        return [mode for mode, (rank, size) in enumerate(zip(self.rank, self._shape, strict=True)) if rank < size]

    def _links(self, bias: bool, **factory: Any) -> list[nn.Module]:
        groups, (ins, outs, *atoms), factored = self.groups, self.rank, self._factored
        point = Geometry.of(self.dims, 1)
        axes = [axis for axis in range(self.dims) if 2 + axis in factored]
        whole = self.geometry.on_axis(*(axis for axis in range(self.dims) if axis not in axes))
        core_ins = groups * ins * math.prod(atoms[axis] for axis in axes)
        core_bias = bias and 1 not in factored
        links: list[nn.Module] = []
        if 0 in factored:
            links.append(make_conv(point, self.in_channels, groups * ins, groups=groups, **factory))
        links.extend(SharedAxisConv(self.geometry.on_axis(axis), atoms[axis], **factory) for axis in axes)
        links.append(make_conv(whole, core_ins, groups * outs, groups=groups, bias=core_bias, **factory))
        if 1 in factored:
            links.append(make_conv(point, groups * outs, self.out_channels, groups=groups, bias=bias, **factory))
        return links

    def _by_mode(self) -> dict[int, Conv]:
        """Return the convolution of each factor by its mode, and the core as -1."""
        modes = sorted(self._factored, key=lambda mode: (mode == 1, mode))
        modes.insert(len(modes) - (1 in modes), -1)
        return dict(zip(modes, self.convolutions(), strict=True))

    def _fit(self, weight: Tensor, **_: Any) -> None:
        tensor = weight.transpose(1, 2)  # (g, inputs, outputs, *kernel)
        core, bases = _hooi(tensor, {mode: self.rank[mode] for mode in self._factored})
        axes = [mode for mode in self._factored if mode > 1]
        # The core's inputs are those of the tensor and then the coefficients of every factored axis.
        core = core.movedim(2, 1).movedim([1 + mode for mode in axes], list(range(3, 3 + len(axes))))
        for mode, conv in self._by_mode().items():
            value = core if mode == -1 else bases[mode] if mode == 1 else bases[mode].mT
            conv.weight.copy_(value.reshape(conv.weight.shape))

    def _whole_core(self) -> Tensor:
        """Return the core with the factors of the axes multiplied in, ``(groups * R_out, R_in, *kernel)``."""
        convs = self._by_mode()
        axes = [mode for mode in convs if mode > 1]
        core: Tensor = convs[-1].weight.unflatten(1, (self.rank[0], *(self.rank[mode] for mode in axes)))
        for position, mode in enumerate(axes, start=1):
            core = torch.tensordot(core, convs[mode].weight.flatten(1), ([2], [0]))
            # What has been the first of the remaining coefficients is now the last dimension: the taps of this axis.
            place = mode + len(axes) - position
            core = core.squeeze(place).movedim(-1, place)
        return core

    def _plain(self) -> list[Conv]:
        convs = self._by_mode()
        old = convs[-1]
        core = make_conv(
            self.geometry,
            self.rank[0] * self.groups,
            old.out_channels,
            groups=self.groups,
            bias=old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        with torch.no_grad():
            core.weight.copy_(self._whole_core())
            if core.bias is not None and old.bias is not None:
                core.bias.copy_(old.bias)
        return [core if mode == -1 else convs[mode] for mode in (0, -1, 1) if mode in convs]

    def _factors(self) -> list[Tensor]:
        convs = self._by_mode()
        weights = [self._whole_core() if mode == -1 else convs[mode].weight for mode in (0, -1, 1) if mode in convs]
        return [weight.unflatten(0, (self.groups, -1)).flatten(3).permute(0, 2, 3, 1) for weight in weights]

    def component_norms(self) -> list[Tensor]:
        """Return the norm of what passes through each channel in front of and behind the core."""
        return bond_norms(self._factors())

    def _pruned(self, threshold: float) -> Self:
        rank = list(self.rank)
        channels = (mode for mode in self._factored if mode < 2)
        for mode, count in zip(channels, bond_ranks(self._factors(), threshold), strict=True):
            rank[mode] = count
        return type(self).from_dense(self.dense(), rank=tuple(rank))

    def _rank_with_axis(self) -> tuple[int, ...]:
        return (*self.rank[:2], 1, *self.rank[2:])

    def _axis_conv(self, axis: int) -> Conv:
        if 2 + axis not in self._factored:
            raise UserError(f"`axis` {axis} of this {type(self).__name__} is whole and has no factor: {self.rank}.")
        return self._by_mode()[2 + axis]


def _hooi(tensor: Tensor, ranks: dict[int, int]) -> tuple[Tensor, dict[int, Tensor]]:
    """Decompose a batch of tensors by higher-order orthogonal iteration (De Lathauwer et al., 2000).

    Args:
        tensor: Shape ``(batch, n_0, n_1, …)``.
        ranks: Rank of every mode that gets a factor; the batch shares the factors of modes 2 and following.

    Returns:
        The cores, and orthonormal factors ``(batch, n, rank)``, of shared modes ``(1, n, rank)``.
    """
    bases = {mode: _basis(tensor, mode, rank) for mode, rank in ranks.items()}
    captured, total = -math.inf, float(tensor.square().sum())
    for _ in range(ROUNDS if len(ranks) > 1 else 0):
        for mode, rank in ranks.items():
            bases[mode] = _basis(_projected(tensor, bases, skip=mode), mode, rank)
        before, captured = captured, float(_projected(tensor, bases).square().sum())
        if captured - before <= GAIN * total:
            break
    return _projected(tensor, bases), bases


def _basis(tensor: Tensor, mode: int, rank: int) -> Tensor:
    if mode > 1:
        unfolded = tensor.movedim(1 + mode, 0).flatten(1).unsqueeze(0)
    else:
        unfolded = tensor.movedim(1 + mode, 1).flatten(2)
    # Where the other modes span fewer directions than `rank`, the remaining columns are zero, and so is the core there.
    return truncated_svd(unfolded, rank)[0]


def _projected(tensor: Tensor, bases: dict[int, Tensor], skip: int | None = None) -> Tensor:
    for mode, basis in bases.items():
        if mode != skip:
            moved = tensor.movedim(1 + mode, 1)
            tensor = torch.einsum("gn...,gnr->gr...", moved, basis.expand(len(moved), -1, -1)).movedim(1, 1 + mode)
    return tensor


@OPERATORS.register
class TuckerConv1d(TuckerConv):
    """:class:`TuckerConv` for ``(N, C, L)``."""

    dims = 1
    examples = (*TuckerConv.examples, {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "rank": (3, 2, 2)})


@OPERATORS.register
class TuckerConv2d(TuckerConv):
    """:class:`TuckerConv` for ``(N, C, H, W)``."""

    dims = 2
    examples = (*TuckerConv.examples, {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "rank": (3, 2, 1, 2)})


@OPERATORS.register
class TuckerConv3d(TuckerConv):
    """:class:`TuckerConv` for ``(N, C, D, H, W)``."""

    dims = 3
    examples = (*TuckerConv.examples, {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "rank": (3, 2, 1, 3, 2)})
