"""The static optimiser: a network rewritten from what its stages and kernels can see, without any training."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from leanconv.errors import UserError
from leanconv.measurement import count_macs, count_params, measure_latency, paired_ratio
from leanconv.measurement.inputs import checked_size, default_size
from leanconv.receptive.decomposer import Kernel, Replacement, decompose
from leanconv.receptive.organizer import Configuration, StagePlan, configuration, organize, plan_stages


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        params: Learnable values.
        macs: Multiply-accumulates of one input batch.
        latency_s: Median seconds of a forward pass on this machine; None where it was not asked for.
    """

    params: int
    macs: int
    latency_s: float | None


@dataclass(frozen=True)
class Optimized:
    """A rewritten network.

    Attributes:
        model: The network, on the CPU; fresh, but for weights it has in common with a given one.
        name: Of the network in the zoo.
        kwargs: Arguments with which ``create_model`` builds it, before kernels are replaced.
        kernel: What convolutions were replaced by, with its groups and overlap; empty if they were not.
        input_size: Batch, channels and spatial lengths it was optimised for.
        stages: Units and what they see, before and after.
        before: Cost before.
        after: Cost after.
        copied: Tensors taken over from the given network.
        replacements: Convolutions that were replaced.
        kept: Convolutions that could not be replaced, and why.
    """

    model: nn.Module
    name: str
    kwargs: dict[str, Any]
    kernel: dict[str, Any]
    input_size: tuple[int, ...]
    stages: tuple[StagePlan, ...]
    before: Cost
    after: Cost
    copied: int
    replacements: tuple[Replacement, ...]
    kept: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the network as a JSON-able dictionary."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "model"}
        record = {
            name: asdict(value)
            if isinstance(value, Cost)
            else [asdict(entry) for entry in value]
            if name in ("stages", "replacements")
            else value
            for name, value in fields.items()
        }
        for entry, stage in zip(record["stages"], self.stages, strict=True):
            entry["portion_before"], entry["portion_after"] = stage.portion(stage.before), stage.portion(stage.after)
        result: dict[str, Any] = json.loads(json.dumps(record))
        return result


def optimize(
    model: str | nn.Module,
    input_size: Sequence[int] | None = None,
    *,
    organize_stages: bool = True,
    move: bool = True,
    kernel: Kernel | None = None,
    groups: int = 2,
    overlap: float = 0.5,
    params: float | None = None,
    macs: float | None = 1.0,
    latency: float | None = None,
    time: bool = False,
    **options: Any,
) -> Optimized:
    """Rewrite a network of the zoo so that none of its stages computes what it can see already.

    Units beyond a stage's saturation are removed and put where they let neurons see more; then, if asked for, standard
    convolutions are replaced.  Nothing is trained; train the result once.

    Args:
        model: Name of a network whose family has ``depths`` (VGG, MobileNet, ResNet, RAN), or one that
            ``create_model`` built, of which weights are kept where layers stay what they are.
        input_size: Batch, channels and spatial lengths; by default one image of the default size.
        organize_stages: Whether to move units between stages at all.
        move: Whether removed units are put elsewhere; without, the network only gets smaller.
        kernel: ``"dw+pw"`` or ``"dw+rpw"`` to replace standard convolutions, None to keep them.
        groups: Of the rolling pointwise convolutions.
        overlap: Of their windows.
        params: Most parameters that moving may lead to, as a share of the original's; None for any number.
        macs: Most multiply-accumulates, likewise.
        latency: Most time of a forward pass, likewise; each candidate is timed.
        time: Whether to time the network before and after.
        **options: Arguments of ``create_model``, such as ``stem="cifar"``.

    Raises:
        UserError: The network is unknown, not of the zoo or without ``depths``, a budget is not positive or cannot be
            met by removing units, or the kernel cannot be placed.

    Example:
        >>> found = optimize("vgg16", stem="cifar", num_classes=10, move=False)
        >>> [stage.after for stage in found.stages]
        [2, 2, 3, 2, 1]
    """
    budgets = {"params": params, "macs": macs, "latency": latency}
    for name, share in budgets.items():
        if share is not None and not (math.isfinite(share) and share > 0):
            raise UserError(f"`{name}` must be a positive share of the original's, got {share}; 1.0 would work.")
    config = configuration(model, **options)
    timed = time or latency is not None
    given = model if isinstance(model, nn.Module) and not options else None
    # Counting needs no weights, and large networks take long to draw theirs.
    with torch.device("cpu" if timed else "meta"):
        original = config.build() if given is None else given
    size = checked_size(default_size(original) if input_size is None else input_size)
    stages = plan_stages(config, size)
    budget = _Budget(config, size, budgets)
    if organize_stages:
        stages = organize(stages, budget.allows, move=move)
        depths = tuple(stage.after for stage in stages)
        if not budget.allows(depths):
            raise UserError(
                f"`{budget.exceeded(depths)}` cannot be met by removing units: {list(depths)} are left; "
                "a larger share, or a kernel that costs less, would work."
            )
    rewritten = config.build([stage.after for stage in stages])
    copied = _copy_common(given, rewritten) if given is not None else 0
    kwargs: dict[str, Any] = rewritten.config["kwargs"]  # type: ignore[assignment, index]
    replacements: tuple[Replacement, ...] = ()
    kept: dict[str, str] = {}
    if kernel is not None:
        decomposition = decompose(rewritten, kernel, groups=groups, overlap=overlap)
        rewritten, replacements, kept = decomposition.model, decomposition.replacements, decomposition.kept
        # What it was built from no longer builds it.
        del rewritten.config
    before, after = _costs(original, rewritten, size, timed)
    chosen = {} if kernel is None else {"kernel": kernel, "groups": groups, "overlap": overlap}
    return Optimized(
        rewritten, config.name, kwargs, chosen, size, tuple(stages), before, after, copied, replacements, kept
    )


class _Budget:
    """What a rewritten network may cost, as shares of the original's."""

    def __init__(self, config: Configuration, size: tuple[int, ...], shares: dict[str, float | None]) -> None:
        self._config, self._size = config, size
        self._shares = {name: share for name, share in shares.items() if share is not None}
        self._whole = self._counts(config.depths)

    def allows(self, depths: tuple[int, ...]) -> bool:
        """Return whether a network of these depths is within the budget."""
        return self.exceeded(depths) is None

    def exceeded(self, depths: tuple[int, ...]) -> str | None:
        """Return which part of the budget a network of these depths exceeds, if any."""
        counts = self._counts(depths)
        for name in ("params", "macs"):
            if name in self._shares and counts[name] > self._shares[name] * self._whole[name]:
                return name
        if "latency" in self._shares and self._slower(depths) > self._shares["latency"]:
            return "latency"
        return None

    def _counts(self, depths: tuple[int, ...]) -> dict[str, int]:
        with torch.device("meta"):
            network = self._config.build(depths)
        return {"params": count_params(network), "macs": count_macs(network, self._size)}

    def _slower(self, depths: tuple[int, ...]) -> float:
        if depths == self._config.depths:
            return 1.0
        timed = _timed({"before": self._config.build(), "after": self._config.build(depths)}, self._size)
        return paired_ratio(timed["after"], timed["before"]).median


def _timed(models: dict[str, nn.Module], size: tuple[int, ...]) -> dict[str, Any]:
    image = torch.randn(size, generator=torch.Generator().manual_seed(0))
    return measure_latency({name: model.eval() for name, model in models.items()}, image)


def _costs(before: nn.Module, after: nn.Module, size: tuple[int, ...], timed: bool) -> tuple[Cost, Cost]:
    latencies = _timed({"before": before, "after": after}, size) if timed else {}
    first, second = (
        Cost(
            count_params(network),
            count_macs(network, size),
            latencies[name].median_s if latencies else None,
        )
        for name, network in (("before", before), ("after", after))
    )
    return first, second


def _copy_common(source: nn.Module, target: nn.Module) -> int:
    """Copy every tensor of the same name and shape; return how many."""
    given, wanted = source.state_dict(), target.state_dict()
    common = {key: value for key, value in given.items() if key in wanted and wanted[key].shape == value.shape}
    target.load_state_dict(common, strict=False)
    return len(common)
