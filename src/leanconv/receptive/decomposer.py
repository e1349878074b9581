"""The kernel-level optimiser: standard convolutions become a depthwise and a pointwise or rolling pointwise one.

Wang, Feng, Peng and Ding, 2021, arXiv 2009.05236, with the placement of the authors' code
(YukeWang96/DSXplore_IPDPS21): every standard convolution but the first, nothing between the two parts.  By the kernel
rule a depthwise and a pointwise convolution see what a standard one sees; a depthwise and a rolling pointwise one do
where at least two follow each other (three with eight groups).

Cost of ``k x k`` taps on ``h x w`` samples: ``h w d_in (k² + d_out / groups)`` MACs against ``h w d_in d_out k²``.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.linalg import truncated_svd
from leanconv.ops.geometry import Geometry
from leanconv.ops.rolling import RollingPointwise, RollingPointwise1d, RollingPointwise2d, RollingPointwise3d
from leanconv.ops.structured import Conv, geometry_of, make_conv

#: What takes the place of a standard convolution: a depthwise and a pointwise, or a rolling pointwise one.
Kernel = Literal["dw+pw", "dw+rpw"]
_ROLLING: dict[int, type[RollingPointwise]] = {1: RollingPointwise1d, 2: RollingPointwise2d, 3: RollingPointwise3d}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Replacement:
    """What became of one convolution.

    Attributes:
        name: Its path in the network.
        before: Parameters before.
        after: Parameters after.
        error: Norm of what the new kernel misses, relative to the norm of the old one.
    """

    name: str
    before: int
    after: int
    error: float


@dataclass(frozen=True)
class Decomposition:
    """A network with replaced kernels.

    Attributes:
        model: The network, a copy.
        replacements: One for each convolution replaced.
        kept: Convolutions that could not be replaced, and why.
    """

    model: nn.Module
    replacements: tuple[Replacement, ...]
    kept: dict[str, str]


@torch.no_grad()
def decompose(model: nn.Module, kernel: Kernel = "dw+rpw", *, groups: int = 2, overlap: float = 0.5) -> Decomposition:
    """Replace the standard convolutions of a network but the first, and keep what their weights can keep.

    The new weights are the best fit: for every input channel the singular vectors of the part of its kernels that the
    structure has.  A pointwise convolution right behind a depthwise one becomes a rolling pointwise one.

    Args:
        model: Any network of ``nn.ConvNd``; it is left as it is.
        kernel: ``"dw+pw"`` or ``"dw+rpw"``.
        groups: Of the rolling pointwise convolutions.
        overlap: Of their windows.

    Raises:
        UserError: ``kernel`` is unknown, ``groups`` or ``overlap`` out of range, or the network has no convolution to
            replace.
    """
    if kernel not in get_args(Kernel):
        raise UserError(f"`kernel` must be one of {', '.join(map(repr, get_args(Kernel)))}, got {kernel!r}.")
    if not 0 <= overlap < 1 or groups < 1:
        raise UserError(f"`groups` and `overlap` must be at least 1 and in [0, 1), got {groups} and {overlap}.")
    rolling = (groups, overlap) if kernel == "dw+rpw" else None
    model = copy.deepcopy(model)
    replacements, kept = [], {}
    for name, conv, norm in list(_candidates(model, with_pointwise=rolling is not None)):
        if rolling is not None and conv.in_channels % groups:
            kept[name] = f"{groups} groups do not divide {conv.in_channels} channels"
            continue
        new, error = _fitted(conv, rolling, norm)
        _replace(model, name, new)
        replacements.append(Replacement(name, _size(conv), _size(new), error))
    if not replacements:
        raise UserError(f"`model` has no convolution that {kernel!r} could replace; a VGG or ResNet would work.")
    return Decomposition(model, tuple(replacements), kept)


def _candidates(model: nn.Module, *, with_pointwise: bool) -> Iterator[tuple[str, Conv, nn.Module | None]]:
    """Yield every standard convolution but the first, and pointwise ones behind depthwise ones, with their norm."""
    before: Conv | None = None
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        conv, previous, before = module, before, module
        pointwise = max(conv.kernel_size) == 1 and max(conv.stride) == 1
        behind_depthwise = previous is not None and 1 < previous.groups == previous.in_channels == conv.in_channels
        standard = conv.groups == 1 and max(conv.kernel_size) > 1 and previous is not None
        if standard or (with_pointwise and conv.groups == 1 and pointwise and behind_depthwise):
            yield name, conv, _norm_behind(model, name)


def _norm_behind(model: nn.Module, name: str) -> nn.Module | None:
    """Return the batch norm that directly follows a layer in a sequence, if one does."""
    parent, _, own = name.rpartition(".")
    sequence = model.get_submodule(parent)
    if not isinstance(sequence, nn.Sequential):
        return None
    children = list(sequence)
    index = [child is model.get_submodule(name) for child in children].index(True) + 1
    return children[index] if own and index < len(children) and isinstance(children[index], _NORMS) else None


def _fitted(conv: Conv, rolling: tuple[int, float] | None, norm: nn.Module | None) -> tuple[nn.Module, float]:
    """Return the layers for a convolution and the relative error of their kernel."""
    geometry, like = geometry_of(conv), conv.weight
    has_bias = conv.bias is not None
    mixing: Conv | RollingPointwise
    mask = torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)
    reads = None
    if rolling is None:
        mixing = make_conv(
            Geometry.of(geometry.dims, 1), *like.shape[1::-1], bias=has_bias, device=like.device, dtype=like.dtype
        )
    else:
        groups, overlap = rolling
        # As released, no bias where batch norm follows: its mean takes over.
        absorbed = has_bias and norm is not None
        mixing = _ROLLING[geometry.dims](
            conv.in_channels,
            conv.out_channels,
            groups,
            overlap,
            bias=has_bias and not absorbed,
            device=like.device,
            dtype=like.dtype,
        )
        if absorbed and norm is not None:
            norm.running_mean -= conv.bias  # type: ignore[operator]
        starts = torch.tensor(mixing.window_starts, device=like.device)
        reads = (starts.unsqueeze(1) + torch.arange(mixing.width, device=like.device)) % conv.in_channels
        mask = torch.zeros_like(mask).scatter_(1, reads, True)
    rows, spatial, error = _rank_one(like, mask)
    mixing.weight.copy_(rows.reshape(mixing.weight.shape) if reads is None else rows.gather(1, reads))
    if mixing.bias is not None and conv.bias is not None:
        mixing.bias.copy_(conv.bias)
    mixing.train(conv.training)
    if max(geometry.kernel_size) == 1:
        return mixing, error
    channels = conv.in_channels
    depthwise = make_conv(
        geometry, channels, channels, groups=channels, bias=has_bias, device=like.device, dtype=like.dtype
    )
    depthwise.weight.copy_(spatial.reshape(depthwise.weight.shape))
    if depthwise.bias is not None:
        depthwise.bias.zero_()
    return nn.Sequential(depthwise, mixing).train(conv.training), error


def _rank_one(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, float]:
    """Fit one spatial kernel an input channel, and what each output takes of it.

    Args:
        weight: ``(outs, ins, *taps)``.
        mask: ``(outs, ins)``, what an output may read.

    Returns:
        ``(outs, ins)``, ``(ins, taps)`` and the relative error.
    """
    by_channel = weight.double().flatten(2).transpose(0, 1)
    kept = by_channel * mask.mT.unsqueeze(2)
    if weight[0, 0].numel() == 1:
        rows, spatial = kept.squeeze(2), kept.new_ones(kept.shape[0], 1)
    else:
        u, s, vh = truncated_svd(kept, 1)
        root = s.sqrt()
        rows, spatial = (u * root.unsqueeze(1)).squeeze(2), (vh * root.unsqueeze(2)).squeeze(1)
    missed = by_channel - rows.unsqueeze(2) * spatial.unsqueeze(1)
    return rows.mT.contiguous(), spatial, float(missed.norm() / by_channel.norm().clamp(min=1e-300))


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, new)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
