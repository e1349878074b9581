"""Plans for latency are timed as a whole."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from leanconv.compression import SpatialSVD
from leanconv.compression.menu import Prices
from leanconv.compression.plan import Entry
from leanconv.compression.timing import solve_timed
from leanconv.errors import UserError


class FixedTimes(Prices):
    """The original takes a second, what replaces it a given share."""

    def __init__(self, share: float) -> None:
        super().__init__("latency")
        self.share = share

    def time(self, modules: Sequence[nn.Module], example: torch.Tensor) -> list[float]:
        return [1.0, self.share][: len(modules)]


MODEL = nn.Sequential(nn.Conv2d(8, 8, 3))
EXAMPLE = torch.zeros(1, 8, 8, 8)
MENUS = {"0": [Entry(None, (), 1.0, 0.0, 0.0), Entry(SpatialSVD(4), (4,), 0.5, 0.1, 0.1)]}


def test_the_fastest_is_named_where_no_layer_times_meet_the_budget() -> None:
    with pytest.raises(UserError, match=r"fastest network that was found takes 0\.700 of"):
        solve_timed(MODEL, MENUS, 0.3, EXAMPLE, FixedTimes(0.7))


def test_the_cheapest_plan_serves_where_it_is_faster_than_its_layers_say() -> None:
    entries, before, after = solve_timed(MODEL, MENUS, 0.3, EXAMPLE, FixedTimes(0.25))
    assert [entry.rank for entry in entries] == [(4,)]
    assert (before, after) == (1.0, 0.25)
