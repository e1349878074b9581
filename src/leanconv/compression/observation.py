"""What the layers of a network read and write on calibration inputs, and how much their outputs matter."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.compression.calibration import Calibration, tensors_in
from leanconv.compression.patches import outputs_at, patches_at, sample_positions
from leanconv.compression.problem import Moments
from leanconv.ops.structured import geometry_of

#: Positions of each image's feature map that a layer is fitted on.
POSITIONS = 10


@dataclass
class Call:
    """One call of a layer on one piece of the calibration inputs."""

    size: tuple[int, ...]
    positions: Tensor
    targets: Tensor


@dataclass
class Observed:
    """What the original network tells about one of its layers.

    Attributes:
        calls: For each piece of the inputs, the layer's calls.
        moments: Of its own inputs and outputs, where asked for.
        sensitivity: Second moments ``(g, q, q)`` of the gradients of the network's outputs with respect to the layer's,
            summed over the positions of an image; None where there are none.
        input_shapes: Shapes of the inputs of its calls in one forward pass, for one image.
    """

    calls: list[list[Call]] = field(default_factory=list)
    moments: Moments | None = None
    sensitivity: Tensor | None = None
    input_shapes: list[tuple[int, ...]] = field(default_factory=list)


def observe(
    model: nn.Module,
    names: Collection[str],
    calibration: Calibration,
    *,
    positions: int,
    seed: int,
    moments: bool,
    gradients: bool,
) -> dict[str, Observed]:
    """Run a network over the calibration inputs and keep what fitting its layers needs.

    Args:
        model: The network, in evaluation mode.
        names: Its layers to observe.
        calibration: What it is run on.
        positions: Positions of each feature map to sample.
        seed: Of the positions.
        moments: Whether to keep moments of the layers' own inputs.
        gradients: Whether to keep how much their outputs matter.

    Returns:
        The layers that are called, in the order they first are.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.Generator().manual_seed(seed)
    layers = {name: model.get_submodule(name) for name in names}
    observed: dict[str, Observed] = {}
    outputs: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        def hook(conv: Any, args: tuple[Any, ...], y: Tensor) -> Tensor | None:
            entry = observed.setdefault(name, Observed(moments=Moments(conv) if moments else None))
            while len(entry.calls) <= piece:
                entry.calls.append([])
            size = tuple(y.shape[2:])
            where = sample_positions(len(y), size, positions, generator)
            targets = outputs_at(y.detach(), where)
            entry.calls[piece].append(Call(size, where, targets))
            if not piece:
                entry.input_shapes.append(tuple(args[0].shape[1:]))
            if entry.moments is not None:
                patches = patches_at(args[0].detach(), geometry_of(conv), size, where)
                entry.moments.add(patches, targets, targets)
            if not y.requires_grad:
                return None
            outputs.setdefault(name, []).append(y)
            return y.clone()  # so that an activation in place leaves `y` alone

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    piece = 0
    try:
        for x in calibration.pieces():
            outputs.clear()
            with torch.set_grad_enabled(gradients):
                results = tensors_in(model(x.clone().requires_grad_(gradients)))
            if gradients:
                gradients = _add_gradients(layers, results, outputs, observed, noise)
            piece += 1
    finally:
        for handle in handles:
            handle.remove()
    for entry in observed.values():
        if entry.sensitivity is not None:
            entry.sensitivity /= calibration.images
    return observed


def _add_gradients(
    layers: dict[str, nn.Module],
    results: list[Tensor],
    outputs: dict[str, list[Tensor]],
    observed: dict[str, Observed],
    noise: torch.Generator,
) -> bool:
    """Add second moments of gradients for one piece; return whether the network is differentiable."""
    pairs = [(result, _direction(result.detach(), noise)) for result in results if result.requires_grad]
    wanted = [(name, y) for name, ys in outputs.items() for y in ys]
    if not pairs or not wanted:
        return False
    gradients = torch.autograd.grad(
        [result for result, _ in pairs], [y for _, y in wanted], [v for _, v in pairs], allow_unused=True
    )
    found: Sequence[Tensor | None] = gradients
    for (name, _), gradient in zip(wanted, found, strict=True):
        if gradient is None:
            continue
        groups: Any = layers[name].groups
        rows = gradient.flatten(2).movedim(1, 2).flatten(0, 1).float()
        rows = rows.unflatten(1, (groups, -1)).transpose(0, 1)
        moment = (rows.mT @ rows).double()
        entry = observed[name]
        entry.sensitivity = moment if entry.sensitivity is None else entry.sensitivity + moment
    return True


def _direction(result: Tensor, noise: torch.Generator) -> Tensor:
    """Return a random direction whose second moments are the curvature of the loss in the outputs.

    Of class scores ``(N, k)``, that of the Kullback-Leibler divergence, ``diag(p) - p pᵀ``; else of half the squared
    error, the identity.
    """
    random = torch.randn(result.shape, generator=noise, dtype=torch.float32).to(result)
    if result.dim() != 2 or result.shape[1] < 2:
        return random
    p = result.float().softmax(1).to(result)
    weighted = p.sqrt() * random
    return weighted - p * weighted.sum(1, keepdim=True)


class _Enough(BaseException):
    """Raised to end a forward pass that has told what it should; no network catches it."""


def gather(model: nn.Module, name: str, calibration: Calibration, observed: Observed) -> Moments:
    """Return the moments of a layer's inputs in ``model`` and its outputs in the network that was observed.

    Args:
        model: A network with the same layer, at the same place, whose layers before may have been replaced.
        name: The layer.
        calibration: The inputs that were observed.
        observed: The layer in the other network.
    """
    layer: Any = model.get_submodule(name)
    geometry, moments = geometry_of(layer), Moments(layer)
    expected: Iterator[Call] = iter(())
    left = 0

    def hook(_: nn.Module, args: tuple[Any, ...], y: Tensor) -> None:
        nonlocal left
        call = next(expected)
        patches = patches_at(args[0], geometry, call.size, call.positions)
        moments.add(patches, call.targets, outputs_at(y, call.positions))
        left -= 1
        if not left:
            raise _Enough

    handle = layer.register_forward_hook(hook, prepend=True)
    try:
        for x, calls in zip(calibration.pieces(), observed.calls, strict=True):
            expected, left = iter(calls), len(calls)
            with torch.no_grad(), suppress(_Enough):
                model(x)
    finally:
        handle.remove()
    return moments
