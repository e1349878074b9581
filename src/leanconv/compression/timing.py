"""Plan for latency: times of single layers do not add up to that of a network, so plans are timed as a whole."""

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from leanconv.compression.menu import Prices
from leanconv.compression.plan import Entry, solve
from leanconv.compression.walk import replaced
from leanconv.errors import UserError

#: Plans that are tried; each but the first corrects the budget by how far off the one before was.
ATTEMPTS = 6
#: A plan within this share of the budget is accepted.
TOLERANCE = 0.02


def solve_timed(
    model: nn.Module, menus: Mapping[str, Sequence[Entry]], budget: float, example: Tensor, prices: Prices
) -> tuple[list[Entry], float, float]:
    """Choose entries so that the whole network, timed beside the original, meets the budget.

    What is timed has the chosen layers with fresh weights, before any is fitted.

    Args:
        model: The original.
        menus: Entries of each layer with times as their costs, the one that keeps it first.
        budget: Fraction of the original's time.
        example: Input of the whole network.
        prices: How to time.

    Returns:
        The entries, and the seconds that original and result take.

    Raises:
        UserError: No plan meets the budget.
    """
    kept = sum(menu[0].cost for menu in menus.values())
    total = max(prices.time([model], example)[0], kept)
    aim, fastest = budget, 1.0
    for _ in range(ATTEMPTS):
        try:
            entries, cheapest = solve(menus, total - kept, total, "latency", aim), False
        except UserError:
            # By its layers' times no plan is fast enough; as a whole the cheapest may be, and says what can be had.
            entries, cheapest = [min(menu, key=lambda entry: entry.cost) for menu in menus.values()], True
        before, after = prices.time([model, _outline(model, menus, entries)], example)
        fastest = min(fastest, after / before)
        if after <= (1 + TOLERANCE) * budget * before:
            return entries, before, after
        if cheapest:
            break
        aim *= budget * before / after
    raise UserError(
        f"`latency` {budget:g} cannot be met: the fastest network that was found takes {fastest:.3f} of the original's "
        "time."
    )


def _outline(model: nn.Module, menus: Mapping[str, Sequence[Entry]], entries: Sequence[Entry]) -> nn.Module:
    """Return the network with the chosen layers, unfitted."""
    outline = copy.deepcopy(model)
    for name, entry in zip(menus, entries, strict=True):
        if entry.method is not None:
            built = entry.method.build(outline.get_submodule(name), entry.rank, bias=True)  # type: ignore[arg-type]
            outline = replaced(outline, name, built)
    return outline
