"""Make a trained network smaller under one budget."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from leanconv.compression.calibration import calibration_for
from leanconv.compression.conversion import IMAGES, OnProgress, convert_layers, frozen_copy
from leanconv.compression.low_rank_methods import ChannelDecomposition, SpatialSVD, Tucker
from leanconv.compression.menu import Prices, menu_of
from leanconv.compression.methods import Method
from leanconv.compression.observation import POSITIONS, observe
from leanconv.compression.plan import UNITS, LayerPlan, Plan, solve
from leanconv.compression.problem import RIDGE
from leanconv.compression.record import Record
from leanconv.compression.separable_methods import DepthwiseDecomposition
from leanconv.compression.timing import solve_timed
from leanconv.compression.walk import Where, convolutions, selected
from leanconv.errors import UserError
from leanconv.measurement import count_macs, count_params

METHODS: tuple[Method, ...] = (DepthwiseDecomposition(), SpatialSVD(), ChannelDecomposition(), Tucker())
"""What the planner tries by default, each at every rank that hardware likes."""


@dataclass(frozen=True)
class Compression:
    """A compressed network.

    Attributes:
        model: The network, with the training mode the original has.
        plan: What was decided for each layer.
        record: What was done.
    """

    model: nn.Module
    plan: Plan
    record: Record


def compress(
    model: nn.Module,
    inputs: Iterable[Any],
    *,
    macs: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    batch: int = 1,
    threads: int | None = None,
    compiled: bool = False,
    methods: Sequence[Method] = METHODS,
    where: Where = None,
    images: int = IMAGES,
    positions: int = POSITIONS,
    ridge: float = RIDGE,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Compression:
    """Replace convolutions so that the network meets a budget at the least predicted harm.

    Every convolution has a menu: keep it, or any method at any rank, each with its cost and what its error is predicted
    to do to the network's outputs (second moments of the outputs' gradients times those of the error).  One entry of
    each is chosen so that the budget is met and the predictions add up to the least, an integer program solved exactly;
    then the layers are converted as :func:`~leanconv.compression.convert` does.

    Args:
        model: The network; it is not changed.
        inputs: Batches of calibration samples, as in :func:`~leanconv.compression.convert`.
        macs: Multiply-accumulates, as a fraction of the original's.
        params: Parameters, likewise.
        latency: Time of a forward pass on this device, likewise: layers and their replacements are timed on inputs of
            the right shape, no replacement is chosen that is not faster than its layer, and the plan is timed as a
            whole.  One of the three is given.
        batch: Inputs in a batch whose latency is measured.
        threads: CPU threads while latency is measured; None leaves the setting.
        compiled: Whether latency is that of what ``torch.compile`` makes of the network.
        methods: What may replace a convolution; a method with a rank is tried with that rank only.
        where: Which layers may be replaced, as in :func:`~leanconv.compression.convert`.
        images: Samples to read from ``inputs``.
        positions: Positions of each feature map to fit on.
        ridge: As in :func:`~leanconv.compression.convert`.
        seed: Of the positions.
        on_progress: Called after each layer that was planned, and each that was converted.

    Raises:
        UserError: The budget is missing or cannot be met (with the least that can), or as
            :func:`~leanconv.compression.convert` does.
    """
    quantity, budget = _budget(macs=macs, params=params, latency=latency)
    if not methods:
        raise UserError("`methods` must name at least one method, got none.")
    layers, left = _plannable(model, methods, where)
    original = frozen_copy(model)
    calibration = calibration_for(original, inputs, images)
    observed = observe(original, layers, calibration, positions=positions, seed=seed, moments=True, gradients=True)
    prices = Prices(quantity, batch=batch, threads=threads, compiled=compiled)
    menus = {}
    for done, (name, entry) in enumerate(observed.items(), start=1):
        conv: Any = original.get_submodule(name)
        assert entry.moments is not None
        problem = entry.moments.problem(entry.sensitivity, ridge=ridge)
        menus[name] = menu_of(conv, entry, problem, methods, prices)
        if quantity == "latency":
            menus[name] = prices.timed(conv, menus[name], entry.input_shapes)
        entry.moments = None
        if on_progress:
            on_progress(done, 2 * len(observed), name)
    if quantity == "latency":
        example = calibration.sample.expand(batch, *calibration.sample.shape[1:]).contiguous()
        entries, before, after = solve_timed(original, menus, budget, example, prices)
    else:
        before = float(
            count_macs(original, example=calibration.sample) if quantity == "macs" else count_params(original)
        )
        fixed = before - sum(menu[0].cost for menu in menus.values())
        entries = solve(menus, fixed, before, quantity, budget)
        after = fixed + sum(entry.cost for entry in entries)
    plan = Plan(
        quantity,
        budget,
        before,
        after,
        tuple(
            LayerPlan(
                name,
                type(entry.method).__name__ if entry.method else None,
                entry.rank,
                menus[name][0].cost,
                entry.cost,
                entry.error,
                entry.relative,
            )
            for name, entry in zip(menus, entries, strict=True)
        ),
    )
    chosen = {name: entry.method for name, entry in zip(menus, entries, strict=True) if entry.method is not None}
    left |= {name: "it is not called" for name in layers if name not in observed}
    offset = len(observed)
    conversion = convert_layers(
        model,
        chosen,
        left,
        (calibration, observed),
        ridge=ridge,
        on_progress=on_progress and (lambda done, _, name: on_progress(offset + done, offset + len(chosen), name)),
    )
    return Compression(conversion.model, plan, conversion.record)


def _budget(**budgets: float | None) -> tuple[str, float]:
    """Return the one budget that was given.

    Raises:
        UserError: None or several were, or it is no fraction.
    """
    given = {name: value for name, value in budgets.items() if value is not None}
    if len(given) != 1:
        named = ", ".join(f"`{name}`" for name in given) or "none"
        raise UserError(
            f"One budget of {', '.join(f'`{name}`' for name in UNITS if name in budgets)} is needed, got {named}."
        )
    ((name, value),) = given.items()
    if not 0 < value <= 1:
        raise UserError(f"`{name}` must be a fraction of the original's, in (0, 1], got {value}; 0.5 halves it.")
    return name, float(value)


def _plannable(model: nn.Module, methods: Sequence[Method], where: Where) -> tuple[list[str], dict[str, str]]:
    """Return the convolutions that one of the methods can replace, and why others are left alone."""
    layers: set[str] = set()
    left: dict[str, str] = {}
    for method in methods:
        try:
            chosen, refused = selected(model, method, where)
        except UserError:
            if method is methods[-1] and not layers:
                raise
            continue
        layers |= set(chosen)
        left |= refused
    order = [name for name in convolutions(model) if name in layers]
    return order, {name: reason for name, reason in left.items() if name not in layers}
