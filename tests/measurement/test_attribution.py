"""Costs end up with the module whose forward spent them."""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from leanconv.measurement.attribution import Attribution
from leanconv.measurement.profile import Layer, profile


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, bias=False)
        self.unused = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x)) * self.scale


def layers_of(network: nn.Module) -> dict[str, Layer]:
    counted = profile(network, (torch.zeros(1, 2, 4, 4),))
    for amount in ("params", "macs", "bytes_moved"):
        assert sum(getattr(layer, amount) for layer in counted.layers) == getattr(counted, amount)
    return {layer.name: layer for layer in counted.layers}


def test_modules_get_their_own_share() -> None:
    layers = layers_of(nn.Sequential(nn.ReLU(), Block(), nn.Flatten()))
    assert list(layers) == ["", "0", "1", "1.conv", "2", "1.unused"]
    plane = 4 * 2 * 16
    assert layers[""] == Layer("", "Sequential", 0, 0, 0, (1, 32))
    assert layers["1"] == Layer("1", "Block", 1, 0, 2 * plane + 4, (1, 2, 4, 4))
    assert layers["1.conv"] == Layer("1.conv", "Conv2d", 4, 2 * 2 * 2 * 16, 2 * (2 * plane + 16), (1, 2, 4, 4))
    assert layers["1.unused"] == Layer("1.unused", "Linear", 12, 0, 0, None)


def test_shared_module_and_shared_weight_count_once() -> None:
    relu, linear = nn.ReLU(), nn.Linear(4, 4, bias=False)
    tied = nn.Linear(4, 4, bias=False)
    tied.weight = linear.weight
    layers = layers_of(nn.Sequential(relu, linear, relu, tied))
    assert [layer.params for layer in layers.values()] == [0, 0, 16, 0]
    assert layers["0"].bytes_moved == 2 * (2 * 4 * 32)


def test_modules_the_network_does_not_own_count_for_their_caller() -> None:
    hidden = [nn.Conv2d(2, 2, 1)]

    class Caller(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return hidden[0](x)

    assert layers_of(Caller())[""].macs == 64


def test_module_that_catches_what_its_child_raises() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError

    class Catching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.child = Failing()

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.child(x)
            except ValueError:
                return x + 1

    layers = layers_of(nn.Sequential(Catching(), nn.ReLU()))
    assert layers["1"].bytes_moved == 2 * 4 * 32


def test_no_hook_stays_behind() -> None:
    hooks = torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks
    network = nn.Sequential(nn.Conv2d(3, 3, 1))
    with Attribution(network):
        assert all(hooks)
        assert not network[0]._forward_hooks
    assert not any(hooks)
