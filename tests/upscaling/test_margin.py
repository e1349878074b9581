"""The margin of a network: exactly what its outputs depend on."""

import pytest
import torch
from enlargers import AtTheEnd, SeesEverything, Small, Strided

from leanconv.errors import UserError
from leanconv.models import create_model, list_models
from leanconv.upscaling.margin import Margin, margin_of


@pytest.mark.parametrize(
    ("network", "margin"),
    [
        (Small(), Margin(5, 1)),
        (AtTheEnd(2), Margin(4, 1)),
        (AtTheEnd(3), Margin(4, 1)),
        (AtTheEnd(2, "reflect"), Margin(4, 1)),
        (Strided(), Margin(5, 2)),
    ],
)
def test_it_is_as_far_as_gradients_reach(network, margin):
    assert margin_of(network) == margin
    side, middle = 40, 20
    reached = 0
    for shift in range(margin.period):
        x = torch.rand(1, 1, side, side, requires_grad=True)
        y = network.double()(x.double())
        factor = y.shape[-1] // side
        at = factor * (middle + shift)
        y[..., at : at + factor, at : at + factor].abs().sum().backward()
        rows = x.grad[0, 0].abs().sum(1).nonzero().flatten() - middle - shift
        reached = max(reached, int(rows.abs().max()))
    assert reached == margin.pixels


@pytest.mark.parametrize("name", list_models(purpose="superres"))
def test_it_is_what_networks_of_the_zoo_say(name):
    network = create_model(name)
    assert margin_of(network) == Margin(network.halo, 1)


@pytest.mark.parametrize("network", [SeesEverything(), AtTheEnd(2, "circular")])
def test_without_bounds_it_is_refused(network):
    with pytest.raises(UserError, match="tile=0"):
        margin_of(network)
