"""The planner: exact, within budget, and clear about budgets that cannot be met."""

import itertools
import json
import random
from typing import Any

import pytest
import torch
from networks import images, small_net
from rich.console import Console
from torch import nn

from leanconv.compression import ChannelDecomposition, DepthwiseDecomposition, Tucker, compress
from leanconv.compression.menu import Prices
from leanconv.compression.plan import Entry, efficient, solve
from leanconv.errors import UserError
from leanconv.measurement import count_macs, count_params


def random_menus(seed: int) -> dict[str, list[Entry]]:
    rng = random.Random(seed)
    menus = {}
    for layer in range(4):
        keep = Entry(None, (), rng.uniform(5, 10), 0.0, 0.0)
        others = [
            Entry(DepthwiseDecomposition(1), (1,), keep.cost * rng.uniform(0.1, 0.9), rng.random(), 0.0)
            for _ in range(4)
        ]
        menus[str(layer)] = [keep, *others]
    return menus


@pytest.mark.parametrize("seed", range(8))
def test_the_plan_is_the_best_of_all(seed: int) -> None:
    menus = random_menus(seed)
    total = 3.0 + sum(menu[0].cost for menu in menus.values())
    budget = 0.45 + 0.06 * seed
    chosen = solve(menus, 3.0, total, "macs", budget)
    affordable = [
        plan for plan in itertools.product(*menus.values()) if 3.0 + sum(entry.cost for entry in plan) <= budget * total
    ]
    assert 3.0 + sum(entry.cost for entry in chosen) <= budget * total * (1 + 1e-9)
    best = min(sum(entry.error for entry in plan) for plan in affordable)
    assert sum(entry.error for entry in chosen) == pytest.approx(best)


def test_entries_that_others_beat_are_dropped() -> None:
    points = [(10, 0.0), (5, 1.0), (6, 1.0), (5, 1.0), (4, 3.0), (7, 0.5), (8, 0.6)]
    entries = [Entry(None, (), cost, error, 0.0) for cost, error in points]
    assert [(entry.cost, entry.error) for entry in efficient(entries)] == [(10, 0.0), (5, 1.0), (4, 3.0), (7, 0.5)]


@pytest.mark.parametrize(("quantity", "count"), [("macs", count_macs), ("params", count_params)])
def test_budgets_are_met_and_plans_tell_what_was_done(quantity: str, count: Any) -> None:
    model, x = small_net(), images(128)
    budgets: dict[str, Any] = {quantity: 0.6}
    result = compress(model, [x], positions=30, **budgets)
    size = {"input_size": (1, 3, 8, 8)} if quantity == "macs" else {}
    # Biases, which keep mean outputs, are parameters too; the plan has counted them.
    assert count(result.model, **size) == pytest.approx(result.plan.after)
    assert result.plan.after <= 0.6 * result.plan.before
    assert result.plan.before == count(model, **size)
    done = {layer.name: layer.method["method"] for layer in result.record.layers}
    assert {layer.name: layer.method for layer in result.plan.layers if layer.method} == done
    assert json.loads(json.dumps(result.plan.to_dict()))["layers"][0]["name"] == "0"
    console = Console(record=True, width=120)
    console.print(result.plan.table())
    text = console.export_text()
    assert all(layer.name in text for layer in result.plan.layers)


def test_the_whole_budget_changes_nothing() -> None:
    model, x = small_net(), images()
    result = compress(model, [x], macs=1.0)
    assert torch.equal(result.model(x), model(x))
    assert {layer.method for layer in result.plan.layers} == {None}


def test_layers_that_matter_less_are_cut_more() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loud, self.quiet = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 16, 3)
            self.quiet.load_state_dict(self.loud.state_dict())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.loud(x).tanh() + 0.01 * self.quiet(x).tanh()).mean((2, 3))

    plan = compress(Branches().eval(), [images()], macs=0.6, methods=[DepthwiseDecomposition()]).plan
    loud, quiet = plan.layers
    assert quiet.after < loud.after


def test_better_than_the_same_rank_everywhere() -> None:
    model, x = small_net(), images(256)
    fresh = torch.randn(256, 3, 8, 8)
    planned = compress(model, [x], macs=0.5, positions=36)
    with torch.no_grad():
        error = (planned.model(fresh) - model(fresh)).norm() / model(fresh).norm()
    assert error < 0.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "One budget of `macs`, `params`, `latency` is needed, got none"),
        ({"macs": 0.5, "params": 0.5}, "got `macs`, `params`"),
        ({"macs": 0.0}, r"`macs` must be a fraction of the original's, in \(0, 1\], got 0.0"),
        ({"params": 1.5}, "`params` must be a fraction"),
        ({"macs": 0.02}, r"`macs` 0.02 cannot be met: the smallest network these methods make has 0\.\d+"),
        ({"macs": 0.5, "methods": []}, "at least one method"),
        ({"macs": 0.5, "where": "none"}, "matches no convolution"),
    ],
)
def test_budgets_that_cannot_be_met_are_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        compress(small_net(), [images()], **arguments)


def test_the_least_budget_that_is_named_works() -> None:
    with pytest.raises(UserError) as caught:
        compress(small_net(), [images()], macs=0.01, methods=[ChannelDecomposition(), Tucker()])
    least = float(str(caught.value).split("; ")[-1].split(" ")[0])
    assert compress(small_net(), [images()], macs=least, methods=[ChannelDecomposition(), Tucker()]).record.layers


def test_networks_that_cannot_be_differentiated_are_planned_by_relative_error() -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                y: torch.Tensor = self.conv(x).round()
            return y

    result = compress(Rounded().eval(), [images()], macs=0.5)
    assert result.plan.layers[0].error == pytest.approx(result.plan.layers[0].relative ** 2, rel=1e-3)


def test_latency_plans_choose_only_what_was_measured_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    def time(_: Prices, modules: Any, example: torch.Tensor) -> list[float]:
        # A device on which depthwise convolutions are slow and all else takes time in proportion to its weights.
        slow = [any(c.groups > 1 for c in m.modules() if isinstance(c, nn.Conv2d)) for m in modules]
        return [1e-6 * count_params(m) * (20 if s else 1) * len(example) for m, s in zip(modules, slow, strict=True)]

    monkeypatch.setattr(Prices, "time", time)
    result = compress(small_net(), [images()], latency=0.7, batch=2)
    assert {layer.method for layer in result.plan.layers} <= {None, "ChannelDecomposition", "SpatialSVD", "Tucker"}
    assert all(layer.after <= layer.before for layer in result.plan.layers)
    assert result.plan.after <= 0.7 * result.plan.before
    assert 2e-6 * count_params(result.model) == pytest.approx(result.plan.after, rel=0.05)
    with pytest.raises(UserError, match=r"`latency` 0.01 cannot be met: the fastest network"):
        compress(small_net(), [images()], latency=0.01)


def test_latency_plans_are_timed_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def time(_: Prices, modules: Any, example: torch.Tensor) -> list[float]:
        # In a network, unlike alone, every pointwise convolution costs as much again as half its weights.
        def seconds(module: nn.Module) -> float:
            alone = len(list(module.modules())) < 5
            extra = sum(
                c.weight.numel() for c in module.modules() if isinstance(c, nn.Conv2d) and c.kernel_size == (1, 1)
            )
            return 1e-6 * (count_params(module) + (0 if alone else extra / 2))

        return [seconds(module) for module in modules]

    monkeypatch.setattr(Prices, "time", time)
    result = compress(small_net(), [images()], latency=0.7)
    assert result.plan.after <= 0.7 * 1.02 * result.plan.before
    assert time(Prices("latency"), [result.model], images(1))[0] == pytest.approx(result.plan.after, rel=0.05)


def test_latency_is_measured_once_for_equal_layers() -> None:
    prices = Prices("latency")
    conv = nn.Conv2d(4, 4, 3)
    menu = [Entry(None, (), 1.0, 0.0, 0.0), Entry(ChannelDecomposition(1), (1,), 0.5, 1.0, 0.5)]
    first = prices.timed(conv, menu, [(4, 8, 8)])
    assert first[0].cost > 0
    assert prices.timed(nn.Conv2d(4, 4, 3), menu, [(4, 8, 8)]) == first


def test_wide_layers_are_planned_with_drafts_and_fitted_in_full() -> None:
    model = nn.Conv2d(72, 8, 3)
    draft = DepthwiseDecomposition(2).draft(model)
    assert (draft.sweeps, draft.rounds) == (1, 0)
    assert DepthwiseDecomposition(2).draft(nn.Conv2d(8, 8, 3)) == DepthwiseDecomposition(2)
    x = torch.randn(60, 72, 6, 6)
    result = compress(model, [x], macs=0.9, positions=16, methods=[DepthwiseDecomposition()])
    assert result.record.layers[0].method["rounds"] > 0
