"""Batch norm over the batch of all processes, also where ``nn.SyncBatchNorm`` has no kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, and of its gradient on the way back.

    The differentiable collectives of torch move between modules from release to release; these two calls stay.
    """

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _over_processes(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


class SynchronisedBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are those of all processes together, in plain differentiable torch.

    It takes over parameters and running statistics of an existing module, which therefore stay in step.
    ``nn.SyncBatchNorm`` does the same faster, on CUDA only.

    Args:
        original: The module to stand in for.
    """

    def __init__(self, original: _BatchNorm) -> None:
        nn.Module.__init__(self)
        for name in ("num_features", "eps", "momentum", "affine", "track_running_stats", "training"):
            setattr(self, name, getattr(original, name))
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(original, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(original, name))

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Accept any (N, C, …): the module in whose place this one stands has had its say."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalise (N, C, …); in evaluation mode like any batch norm."""
        if not self.training and self.running_mean is not None:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = torch.full((1,), x.numel() // x.shape[1], dtype=x.dtype, device=x.device)
        sums = _over_processes(torch.cat([x.sum(axes), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x - mean.view(shape)
        # Squares of centred values, at the price of a second exchange, do not cancel.
        var = _over_processes(centred.square().sum(axes)) / total
        self._track(mean.detach(), var.detach(), total)
        scale = torch.rsqrt(var + self.eps)
        if self.affine:
            scale = scale * self.weight
        out = centred * scale.view(shape)
        if self.affine:
            out = out + self.bias.view(shape)
        result: Tensor = out.to(input.dtype)
        return result

    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Update the running statistics; the variance is the unbiased one, as everywhere in torch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        factor = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), factor)


@contextmanager
def synchronised_batch_norm(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Let every batch norm of ``model`` see all processes inside the context; the modules return after it."""
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm)
    ]
    for parent, name, child in places:
        stand_in = (
            nn.SyncBatchNorm.convert_sync_batchnorm(child) if device.type == "cuda" else SynchronisedBatchNorm(child)
        )
        setattr(parent, name, stand_in)
    try:
        yield
    finally:
        for parent, name, child in places:
            child.training = getattr(parent, name).training
            setattr(parent, name, child)
