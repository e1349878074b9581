"""The effective receptive field: how much each sample of the image really moves a central output.

Luo, Li, Urtasun and Zemel, 2016, arXiv 1701.04128.  The gradient of a central output falls off towards the border of
the theoretical field, about as a Gaussian does; trained or fresh, a network uses a fraction of what it could see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.errors import UserError, nearest
from leanconv.measurement.forward import run
from leanconv.measurement.inputs import checked_size, default_size
from leanconv.measurement.placement import evaluating

#: Share of the peak above which a sample counts, two standard deviations of a Gaussian (section 3 of the paper).
THRESHOLD = 1 - 0.9545


@dataclass(frozen=True)
class EffectiveField:
    """How much the samples of the image move the central output of a layer.

    Attributes:
        layer: Path of the layer.
        heat: Mean magnitude of the gradient, of the image's spatial lengths, at most 1.
        size: Side of the square (in 1-D the length, in 3-D the side of the cube) of as many samples as exceed 4.55 %
            of the peak.
    """

    layer: str
    heat: Tensor
    size: float


def effective_receptive_field(
    model: nn.Module,
    input_size: Sequence[int] | None = None,
    *,
    layer: str | None = None,
    images: int = 16,
) -> EffectiveField:
    """Find the effective receptive field of a layer from gradients on random images.

    The images are drawn from a normal distribution with a generator of their own, so that the result is the same
    every time; all channels of the central output count alike.

    Args:
        model: The network, in whose weights the answer lies; it is read in evaluation mode.
        input_size: Batch, channels and spatial lengths; by default one image of ``model.input_size``.
        layer: Path of a module; by default the last one whose output still has a spatial extent.
        images: How many random images to average over.

    Raises:
        UserError: ``layer`` is unknown or its output has no spatial extent, or ``input_size`` does not fit.
    """
    size = checked_size(default_size(model) if input_size is None else input_size)
    reference = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    modules = dict(model.named_modules())
    if layer is not None and layer not in modules:
        raise UserError(f"`layer` {layer!r} is not in the network: {nearest(layer, modules)}")
    noise = torch.randn(images, *size[1:], generator=torch.Generator().manual_seed(0))
    outputs: dict[str, Tensor] = {}
    names = {module: name for name, module in modules.items() if layer is None or name == layer}

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == len(size) and output.shape[2:].numel() > 1:
            outputs.pop(names[module], None)
            outputs[names[module]] = output

    hooks = [module.register_forward_hook(keep) for module in names if layer is not None or not list(module.children())]
    heat = torch.zeros(size[2:], dtype=torch.float64)
    try:
        with evaluating(model), torch.enable_grad():
            for row in noise:
                outputs.clear()
                image = row.unsqueeze(0).to(reference).requires_grad_()
                run(model, (image,))
                if not outputs:
                    raise UserError(f"`layer` {layer!r} has no output with a spatial extent; a convolution would work.")
                chosen, output = list(outputs.items())[-1]
                (gradient,) = torch.autograd.grad(_central(output), image)
                heat += gradient[0].abs().sum(0).double().cpu()
    finally:
        for hook in hooks:
            hook.remove()
    heat = heat / heat.max().clamp(min=torch.finfo(torch.float64).tiny)
    count = int((heat > THRESHOLD).sum())
    return EffectiveField(chosen, heat, count ** (1 / heat.dim()))


def _central(output: Tensor) -> Tensor:
    """Return the sum over channels at the middle of space."""
    for dim in reversed(range(2, output.dim())):
        output = output.select(dim, output.shape[dim] // 2)
    return output.sum()
