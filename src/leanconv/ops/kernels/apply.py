"""Convolution, batch norm, what is added and activation: fused where that is faster, by torch's operators elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeGuard

import torch
from torch import Tensor, nn

from leanconv.ops.hooks import has_hooks
from leanconv.ops.kernels.depthwise_norm import NO_ACTIVATION, RELU, RELU6, Options, depthwise_norm, supported
from leanconv.ops.kernels.library import LANES, library

#: Elements from which the fused form is used.  Axial pairs of 8,192 to 262,144 elements trained 1.2 to 1.9 times as
#: fast as by PyTorch's operators (AMD EPYC, one thread), but for less than this the kernel is not worth building.
LEAST_ELEMENTS = 65_536

_BOUNDS: dict[type[nn.Module], float] = {nn.ReLU: RELU, nn.ReLU6: RELU6}
_fusing = ContextVar("fusing", default=True)


@contextmanager
def plain_forms() -> Iterator[None]:
    """Compute by torch's own operators within this context, in order to compare or to differentiate twice."""
    token = _fusing.set(False)
    try:
        yield
    finally:
        _fusing.reset(token)


def apply_conv_norm(
    x: Tensor,
    conv: nn.Module,
    norm: nn.Module,
    activation: nn.Module | None = None,
    *,
    residual: bool = False,
    added: Tensor | None = None,
) -> Tensor:
    """Return ``activation(norm(conv(x)) + x + added)``, and update the norm's running statistics.

    In training on a processor, batch norms are fused with what follows them, and with the convolution before them where
    that is depthwise, if images have their channels last in memory (:func:`arranged` sees to it), nothing is compiled,
    exported or transformed by ``torch.func``, and the modules are the plain ones of torch without hooks.  Everything
    else is computed module by module.

    Args:
        x: Images, ``(N, C, H, W)``; anything else is computed module by module.
        conv: Any module; it is called unless it is fused.
        norm: Any module.
        activation: Any module; None for none.
        residual: Whether ``x`` is added; ``conv`` must keep its shape.
        added: A tensor of the result's shape to add.
    """
    if norm.training and not torch.compiler.is_compiling() and isinstance(x, Tensor) and x.is_cpu and _fusing.get():
        return _best(x, conv, norm, activation, residual, added)
    y = norm(conv(x))
    return _finished(x, y, activation, residual, added)


def arranged(x: Tensor, channels: int) -> Tensor:
    """Return images with their channels last in memory where forms fused in training pay for it.

    Convolutions keep that order, so that a network whose images are arranged works in it throughout.

    Args:
        x: Images, ``(N, C, H, W)``, of any size.
        channels: Of what is computed from them in that size.
    """
    if torch.compiler.is_compiling() or not (isinstance(x, Tensor) and x.is_cpu and x.dim() == 4 and _fusing.get()):
        return x
    samples = x.shape[0] * x.shape[2:].numel()
    if channels < LANES or samples * channels < LEAST_ELEMENTS or library() is None:
        return x
    return x.contiguous(memory_format=torch.channels_last)


def _best(
    x: Tensor, conv: nn.Module, norm: nn.Module, activation: nn.Module | None, residual: bool, added: Tensor | None
) -> Tensor:
    upper = NO_ACTIVATION
    if activation is not None and not has_hooks(activation):
        upper = _BOUNDS.get(type(activation), NO_ACTIVATION)
    rest = None if upper != NO_ACTIVATION else activation
    if added is None and _fusible(norm, x, added):
        depthwise = _depthwise(x, conv, residual, upper)
        if depthwise is None and residual:  # but perhaps without the activation
            depthwise, rest = _depthwise(x, conv, residual, NO_ACTIVATION), activation
        if depthwise is not None and _pays(x):
            return _finished(x, _fused(x, depthwise[0], norm, None, depthwise[1]), rest)
    y = conv(x)
    if not residual and _fusible(norm, y, added):
        options = Options((1, 1), (0, 0), (1, 1), False, upper)
        if supported(y, None, options) and _pays(y):
            return _finished(y, _fused(y, None, norm, added, options), rest)
    return _finished(x, norm(y), activation, residual, added)


def _finished(
    x: Tensor, y: Tensor, activation: nn.Module | None, residual: bool = False, added: Tensor | None = None
) -> Tensor:
    """Add and activate what is still to be."""
    y = x + y if residual else y
    y = y if added is None else y + added
    return y if activation is None else activation(y)


def _fusible(norm: nn.Module, x: Tensor, added: Tensor | None) -> TypeGuard[nn.BatchNorm2d]:
    """Whether this is a plain batch norm in training that may be fused at all."""
    return (
        type(norm) is nn.BatchNorm2d
        and x.dim() == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch._C._get_tracing_state()
        and torch._C._functorch.maybe_current_level() is None
        and norm.affine
        and norm.weight.dtype == torch.float32
        and not has_hooks(norm)
        and x.numel() > x.shape[1]
        and (added is None or (added.dtype == x.dtype and added.shape == x.shape))
        and (not torch.is_autocast_enabled("cpu") or x.dtype == torch.get_autocast_dtype("cpu"))
    )


def _depthwise(x: Tensor, conv: nn.Module, residual: bool, upper: float) -> tuple[Tensor, Options] | None:
    """Return the weight of a convolution and how to fuse it, or None where that is not possible."""
    if not (
        type(conv) is nn.Conv2d
        and conv.groups == conv.in_channels == conv.out_channels == x.shape[1]
        and conv.bias is None
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.weight.dtype == torch.float32
        and not has_hooks(conv)
        and (x.dtype == torch.float32 or torch.is_autocast_enabled("cpu"))
    ):
        return None
    options = Options(conv.stride, conv.padding, conv.dilation, residual, upper)
    return (conv.weight, options) if supported(x, conv.weight, options) else None


def _pays(x: Tensor) -> bool:
    return x.numel() >= LEAST_ELEMENTS and library() is not None


def _fused(x: Tensor, weight: Tensor | None, norm: nn.BatchNorm2d, added: Tensor | None, options: Options) -> Tensor:
    y, mean, variance, _ = depthwise_norm(x, weight, norm.weight, norm.bias, added, norm.eps, *options)
    if norm.track_running_stats:
        _track(norm, mean, variance, y.numel() // y.shape[1])
    return y


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics as ``nn.BatchNorm2d`` does."""
    tracked, running_mean, running_var = norm.num_batches_tracked, norm.running_mean, norm.running_var
    assert isinstance(tracked, Tensor)
    assert isinstance(running_mean, Tensor)
    assert isinstance(running_var, Tensor)
    tracked.add_(1)
    factor = 1 / float(tracked) if norm.momentum is None else norm.momentum
    running_mean.lerp_(mean, factor)
    running_var.lerp_(variance * (count / (count - 1)), factor)
