"""The independent truth about what a network can see: change the image and look which outputs change."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from leanconv.measurement.inputs import checked_size, default_size
from leanconv.receptive.reach import Reach, output_positions

#: Images that are run at a time.
BATCH = 64
#: Relative change of a bright image's outputs that rounding cannot explain.
TOLERANCE = 1e-11


@torch.no_grad()
def probe(model: nn.Module, input_size: Sequence[int] | None = None) -> tuple[Reach, ...]:
    """Return what each output of a network depends on, by running it.

    A copy gets positive weights in double precision, so that nothing cancels.  One slice of the image at a time (a
    sample along an axis, or a channel) is changed.  This is done on a black image with biases at zero, where every
    layer that is not zero behind a black image shows what it saw, however faintly; and on a bright one, where products
    of two signals show what either saw.  An output depends on a slice if it changes in either run.

    It costs some runs of the network for every sample along every axis, and is meant for small networks and as a test
    of :func:`reach`.  Layers that saturate or select may hide a dependence, so it can miss some, but invents none.

    Args:
        model: Any network of one image batch.
        input_size: A batch of one, channels and spatial lengths; by default one image of ``model.input_size``.
    """
    size = checked_size(default_size(model) if input_size is None else input_size)
    positive = _positive(model)
    found: list[list[Tensor]] = []
    for dim in (*range(2, len(size)), 1):
        changed: list[Tensor] = []
        for bright in (False, True):
            with _biases(positive, bright):
                if bright:
                    _normalise(positive, torch.ones(1, *size[1:], dtype=torch.float64))
                runs = _changed(positive, size, dim, bright)
            changed = [was | now for was, now in zip(changed, runs, strict=True)] if changed else runs
        found.append([output_positions(c, dim - 2 if dim > 1 else None) for c in changed])
    return tuple(
        Reach(tuple(axis[index] for axis in found[:-1]), found[-1][index].squeeze(1)) for index in range(len(found[0]))
    )


def _positive(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose weights average what they read, all positively."""
    positive = copy.deepcopy(model).cpu().double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in positive.parameters():
        fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
        values = torch.rand(parameter.shape, dtype=torch.float64, generator=generator)
        parameter.copy_((0.5 + values) / fan_in)
    for module in positive.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.reset_running_stats()
    return positive


@contextmanager
def _biases(model: nn.Module, present: bool) -> Iterator[None]:
    """Take the biases away for a while, unless they are wanted."""
    if present:
        yield
        return
    kept = [(parameter, parameter.clone()) for name, parameter in model.named_parameters() if name.endswith("bias")]
    for parameter, _ in kept:
        parameter.zero_()
    try:
        yield
    finally:
        for parameter, value in kept:
            parameter.copy_(value)


def _normalise(model: nn.Module, image: Tensor) -> None:
    """Let every batch norm divide by the size of what it sees, so that nothing after it saturates."""

    def scale(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        module.running_var.fill_(float(inputs[0].square().mean()))  # type: ignore[operator]

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(scale) for norm in norms]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()


def _changed(model: nn.Module, size: Sequence[int], dim: int, bright: bool) -> list[Tensor]:
    """Return for each output which elements change with each slice, ``(1, channels, *spatial, slices)``."""
    base = torch.full((1, *size[1:]), float(bright), dtype=torch.float64)
    parts: list[list[Tensor]] = []
    for first in range(0, size[dim], BATCH):
        slices = torch.arange(first, min(size[dim], first + BATCH))
        images = base.repeat(len(slices) + 1, *[1] * (len(size) - 1))
        for row, index in enumerate(slices):
            images[1 + row].select(dim - 1, int(index)).add_(1.0)
        outputs = model(images)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        # On a black image nothing but what was changed is not zero; on a bright one sums are rounded.
        least = [TOLERANCE * output[:1].abs() if bright else 0.0 for output in outputs]
        parts.append(
            [
                ((output[1:] - output[:1]).abs() > bound).movedim(0, -1).unsqueeze(0)
                for output, bound in zip(outputs, least, strict=True)
            ]
        )
    return [torch.cat(runs, -1) for runs in zip(*parts, strict=True)]
