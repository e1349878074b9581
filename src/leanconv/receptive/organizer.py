"""The stage-level optimiser: units leave stages that see everything and go where they let neurons see more.

Wang, Feng, Peng and Ding, 2021, arXiv 2009.05236, has the idea; the procedure is our reading of it.  A stage's units
count as stride 1 at the stage's resolution.  Those beyond saturation are removed and put back one by one where a unit
adds the largest portion (the earlier stage where two are equal), as long as the budget lasts.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models import MODELS, create_model
from leanconv.receptive.field import receptive_field

#: Whether a network of so many units a stage is within the budget.
Affordable = Callable[[tuple[int, ...]], bool]


@dataclass(frozen=True)
class StagePlan:
    """A stage before and after.

    Attributes:
        resolution: Spatial lengths of its output.
        growth: Samples by which one unit widens the field along each axis.
        before: Units before.
        after: Units after.
        saturated_by: Units after which a central neuron sees the whole stage.
    """

    resolution: tuple[int, ...]
    growth: tuple[int, ...]
    before: int
    after: int
    saturated_by: int

    def portion(self, units: int) -> float:
        """Return the share of the stage that so many units let a central neuron see."""
        return math.prod(
            min(1 + growth * units, length) / length
            for growth, length in zip(self.growth, self.resolution, strict=True)
        )

    def gain(self, units: int) -> float:
        """Return what one more unit than so many adds to the portion."""
        return self.portion(units + 1) - self.portion(units)


@dataclass(frozen=True)
class Configuration:
    """A name of the zoo and its arguments, which can be rewritten.

    Attributes:
        name: Of the network.
        kwargs: Arguments of ``create_model``.
        depths: Units a stage.
    """

    name: str
    kwargs: dict[str, Any]
    depths: tuple[int, ...]

    def build(self, depths: Sequence[int] | None = None, **options: Any) -> nn.Module:
        """Build the network, with other depths where they are given."""
        changed = {} if depths is None or tuple(depths) == self.depths else {"depths": list(depths)}
        return create_model(self.name, **{**self.kwargs, **changed, **options})


def configuration(model: str | nn.Module, **options: Any) -> Configuration:
    """Return the configuration of a network of the zoo, by name or as built.

    Raises:
        UserError: The network is not of the zoo, or its family has no ``depths``.
    """
    if isinstance(model, nn.Module):
        config = getattr(model, "config", None)
        if not isinstance(config, dict):
            raise UserError(
                f"`model` {type(model).__name__} has no configuration to rewrite; a network of create_model would work."
            )
        name, kwargs = config["name"], {**config["kwargs"], **options}
    else:
        name, kwargs = model, options
    if "depths" not in inspect.signature(MODELS[name].build).parameters:
        able = [n for n in MODELS if "depths" in inspect.signature(MODELS[n].build).parameters]
        raise UserError(f"`model` {name!r} has no option `depths` to rewrite; {', '.join(able[:6])}, … have one.")
    with torch.device("meta"):
        network = create_model(name, **kwargs)
    return Configuration(name, kwargs, tuple(len(units) for units in _units(network)))


def _units(network: nn.Module) -> list[list[nn.Module]]:
    """Return the units of each stage: its convolutions, or its blocks; stages that only pool have none."""
    stages = []
    for stage in network.get_submodule("stages"):  # type: ignore[attr-defined]
        children = list(stage.children()) if isinstance(stage, nn.Sequential) else []
        convs: list[nn.Module] = [child for child in children if isinstance(child, nn.Conv2d)]
        if children:
            stages.append(convs or children)
    return stages


def plan_stages(config: Configuration, input_size: Sequence[int]) -> list[StagePlan]:
    """Return the stages of a network as they are.

    Raises:
        UserError: A unit sees the whole image at once, as those with attention do.
    """
    with torch.device("meta"):
        network = config.build().eval()
        units = _units(network)
        shapes = _input_shapes(network, [unit for stage in units for unit in stage], input_size)
        features = config.build(features_only=True).eval()(torch.empty(tuple(input_size)))
    found: list[tuple[int, ...] | None] = []
    for stage in units:
        layer = receptive_field(nn.Sequential(stage[-1]), shapes[stage[-1]]).layers[-1]
        if any(axis.jump is None for axis in layer.axes):
            raise UserError(
                f"`model` {config.name!r} has units that see the whole image at once, so that no stage can be "
                "saturated; a network without attention would work."
            )
        # Where a stage is one strided unit, its growth is that of the others, which are built alike.
        strided = any(axis.jump != 1 for axis in layer.axes)
        found.append(None if strided else tuple(axis.size - 1 for axis in layer.axes))
    known = [growth for growth in found if growth is not None]
    if not known or not all(min(growth) for growth in known):
        raise UserError(f"`model` {config.name!r} has units that widen no field; convolutions of 3 taps would work.")
    plans = []
    for stage, growth, feature in zip(units, found, features, strict=False):
        resolution = tuple(feature.shape[2:])
        widening = growth or known[0]
        saturated = max(1, *(math.ceil((length - 1) / step) for length, step in zip(resolution, widening, strict=True)))
        plans.append(StagePlan(resolution, widening, len(stage), len(stage), saturated))
    return plans


def _input_shapes(
    network: nn.Module, modules: Sequence[nn.Module], input_size: Sequence[int]
) -> dict[nn.Module, tuple[int, ...]]:
    """Return the shapes of what enters modules in a forward pass."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes[module] = tuple(inputs[0].shape)

    hooks = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        with torch.no_grad():
            network(torch.empty(tuple(input_size)))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def organize(stages: Sequence[StagePlan], affordable: Affordable, *, move: bool = True) -> list[StagePlan]:
    """Remove the units beyond saturation, and put them where they add most.

    Args:
        stages: As they are.
        affordable: Whether a network of given depths is within the budget.
        move: Whether to put removed units elsewhere.
    """
    depths = [min(stage.before, stage.saturated_by) for stage in stages]
    free = sum(stage.before for stage in stages) - sum(depths) if move else 0
    open_stages = set(range(len(stages)))
    while free and open_stages:
        gains = {index: stages[index].gain(depths[index]) for index in sorted(open_stages)}
        best = max(gains, key=lambda index: (gains[index], -index))
        if gains[best] <= 0:
            break
        trial = [depth + (index == best) for index, depth in enumerate(depths)]
        if affordable(tuple(trial)):
            depths, free = trial, free - 1
        else:
            open_stages.discard(best)
    return [
        StagePlan(stage.resolution, stage.growth, stage.before, depth, stage.saturated_by)
        for stage, depth in zip(stages, depths, strict=True)
    ]
