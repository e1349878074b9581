"""Which method and rank each layer gets: a multiple-choice knapsack, solved exactly."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leanconv.compression.methods import Method
from leanconv.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

#: What a budget may be a fraction of, with the unit a plan shows.
UNITS = {"macs": (1e6, "M MACs"), "params": (1e3, "k params"), "latency": (1e-3, "ms")}


@dataclass(frozen=True)
class Entry:
    """One thing that may be done to a layer.

    Attributes:
        method: The method with its rank, None to keep the layer.
        rank: Its ranks.
        cost: MACs, parameters or seconds.
        error: What it is predicted to do to the network's outputs.
        relative: Relative error of the layer's outputs.
    """

    method: Method | None
    rank: tuple[int, ...]
    cost: float
    error: float
    relative: float


@dataclass(frozen=True)
class LayerPlan:
    """What is done to a layer.

    Attributes:
        name: Its path in the network.
        method: Name of the method, None to keep it.
        rank: Its ranks.
        before: Cost of the layer as it is.
        after: Cost of what replaces it.
        error: Predicted effect on the network's outputs: the Kullback-Leibler divergence of class scores (half the
            squared error of other outputs), of an image on average.
        relative: Relative error of the layer's outputs.
    """

    name: str
    method: str | None
    rank: tuple[int, ...]
    before: float
    after: float
    error: float
    relative: float


@dataclass(frozen=True)
class Plan:
    """What is done to each layer of a network, and what that costs.

    Attributes:
        quantity: What the budget is about: ``"macs"``, ``"params"`` or ``"latency"``.
        budget: Fraction of the original's that was asked for.
        before: Cost of the original network.
        after: Planned cost of the compressed one.
        layers: The layers that had a choice, in the order they are called.
    """

    quantity: str
    budget: float
    before: float
    after: float
    layers: tuple[LayerPlan, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain, JSON-able objects."""
        plain = asdict(self)
        plain["layers"] = [{**layer, "rank": list(layer["rank"])} for layer in plain["layers"]]
        return plain

    def table(self) -> "Table":
        """Return the plan for people: a row for each layer."""
        from rich.table import Table

        scale, unit = UNITS[self.quantity]
        title = f"{self.after / scale:.4g} of {self.before / scale:.4g} {unit} ({self.after / self.before:.3f})"
        # Without a frame, rows of networks with long names fit in 80 columns.
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for heading in ("layer", "becomes", "rank"):
            table.add_column(heading)
        for heading in ("before", "after", "error", "effect"):
            table.add_column(heading, justify="right")
        for layer in self.layers:
            table.add_row(
                layer.name,
                layer.method or "kept",
                ", ".join(map(str, layer.rank)),
                f"{layer.before / scale:.4g}",
                f"{layer.after / scale:.4g}",
                f"{100 * layer.relative:.1f} %",
                f"{layer.error:.2g}",
            )
        return table


def efficient(entries: Sequence[Entry], keys: Sequence[Sequence[float]] | None = None) -> list[Entry]:
    """Return the entries that no other beats in all of their costs and in error.

    Args:
        entries: Of one layer.
        keys: Costs of each entry to compare by; its ``cost`` by default.
    """
    points = [(*(keys[index] if keys else (entry.cost,)), entry.error) for index, entry in enumerate(entries)]
    kept = []
    for index, (entry, point) in enumerate(zip(entries, points, strict=True)):
        beaten = any(
            all(a <= b for a, b in zip(other, point, strict=True)) and (other != point or place < index)
            for place, other in enumerate(points)
            if place != index
        )
        if not beaten:
            kept.append(entry)
    return kept


def solve(
    menus: Mapping[str, Sequence[Entry]], fixed: float, total: float, quantity: str, budget: float
) -> list[Entry]:
    """Choose one entry from each menu so that errors add up to the least within the budget.

    Args:
        menus: Entries of each layer, the one that keeps it first.
        fixed: Cost of everything else in the network.
        total: Cost of the whole network as it is.
        quantity: Name of the budget, for messages.
        budget: Fraction of ``total`` that may be spent.

    Raises:
        UserError: Not even the cheapest entries are within the budget.
    """
    cheapest = fixed + sum(min(entry.cost for entry in menu) for menu in menus.values())
    if cheapest > budget * total:
        least = np.ceil(1000 * cheapest / total) / 1000
        raise UserError(
            f"`{quantity}` {budget:g} cannot be met: the smallest network these methods make has {least:.3f} of the "
            f"original's {quantity}; {least:.3f} or more would work."
        )
    from scipy.optimize import Bounds, LinearConstraint, milp

    entries = [entry for menu in menus.values() for entry in menu]
    owners = np.repeat(np.arange(len(menus)), [len(menu) for menu in menus.values()])
    one_each = (owners == np.arange(len(menus))[:, None]).astype(float)
    costs = np.array([entry.cost for entry in entries]) / total
    errors = np.array([entry.error for entry in entries])
    result = milp(
        errors / max(errors.max(), np.finfo(float).tiny),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(costs[None], -np.inf, budget - fixed / total),
        ],
        integrality=np.ones(len(entries)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    chosen = np.asarray(result.x) > 0.5
    return [entry for entry, taken in zip(entries, chosen, strict=True) if taken]
