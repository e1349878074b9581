"""The static optimiser: published counts, budgets, weights that are kept, and what is refused."""

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from leanconv.cli import app
from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.ops import RollingPointwise2d
from leanconv.receptive import StagePlan, decompose, optimize
from leanconv.receptive.organizer import organize

CIFAR = {"stem": "cifar", "num_classes": 10}


def depths(found: object) -> list[int]:
    return [stage.after for stage in found.stages]  # type: ignore[attr-defined]


def test_mobilenet_loses_its_saturated_blocks() -> None:
    found = optimize("mobilenet_v1_100", move=False, **CIFAR)
    assert depths(found) == [1, 2, 2, 2, 1]
    assert (found.before.params, found.after.params) == (3_217_226, 1_080_138)
    # Whatever was removed, neurons still see all of these stages.
    assert [stage.portion(stage.after) for stage in found.stages[3:]] == [1, 1]


@pytest.mark.parametrize(("kernel", "params", "macs"), [("dw+pw", 1_690_954, 38.0), ("dw+rpw", 869_642, 20.7)])
def test_vgg16_in_parts_has_the_published_size(kernel: str, params: int, macs: float) -> None:
    found = optimize("vgg16", organize_stages=False, kernel=kernel, **CIFAR)
    assert found.after.params == params
    assert round(found.after.macs / 1e6, 1) == macs
    assert found.before.params == 14_728_266
    assert len(found.replacements) == 12


def test_moved_units_go_where_they_add_most_within_the_budget() -> None:
    found = optimize("vgg16", base_width=8, **CIFAR)
    assert depths(found) == [2, 2, 4, 2, 1]
    assert found.after.macs <= found.before.macs
    again = create_model(found.name, **found.kwargs)
    assert sum(p.numel() for p in again.parameters()) == found.after.params


def stage(side: int, units: int) -> StagePlan:
    return StagePlan((side, side), (2, 2), units, units, -(-(side - 1) // 2))


def test_organizing_by_hand() -> None:
    stages = [stage(16, 1), stage(8, 1), stage(4, 5)]
    # Two units suffice at the end; the three others add most at 8x8, until that is saturated.
    assert [s.after for s in organize(stages, lambda _: True)] == [1, 4, 2]
    assert [s.after for s in organize(stages, lambda _: True, move=False)] == [1, 1, 2]
    assert [s.after for s in organize(stages, lambda depths: depths[1] < 3)] == [3, 2, 2]
    # Where nothing can gain any more, what is left over stays away.
    assert [s.after for s in organize([stage(4, 1), stage(4, 9)], lambda _: True)] == [2, 2]


@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet26_cifar", "ran26", "resnet18"])
def test_every_configurable_family_is_rewritten(name: str) -> None:
    options = {"stem": "cifar"} if name == "resnet18" else {}
    found = optimize(name, (1, 3, 16, 16), base_width=4, move=False, **options)
    assert sum(depths(found)) < sum(s.before for s in found.stages)
    assert found.after.macs < found.before.macs
    assert found.model(torch.randn(2, 3, 16, 16)).shape[0] == 2
    json.dumps(found.to_dict(), allow_nan=False)


def test_weights_of_a_given_network_stay() -> None:
    net = create_model("vgg16", base_width=4, **CIFAR)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    found = optimize(net, move=False)
    after = found.model.state_dict()
    assert found.copied == len(after)
    assert torch.equal(after["stages.3.4.weight"], before["stages.3.4.weight"])
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_separable_kernels_are_recovered() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, 2, 1), nn.BatchNorm2d(6)).double().eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(6, 8, 1, 1).double() * torch.randn(1, 8, 3, 3).double())
    found = decompose(net, "dw+pw")
    images = torch.randn(2, 3, 12, 10, dtype=torch.float64)
    assert found.replacements[0].error < 1e-7
    torch.testing.assert_close(found.model(images), net(images))


@pytest.mark.parametrize("bias", [True, False])
def test_rolling_kernels_are_recovered_and_norms_take_their_bias(bias: bool) -> None:
    rolling = RollingPointwise2d(8, 6, 2).double()
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, padding=1, bias=bias), nn.BatchNorm2d(6)).double()
    with torch.no_grad():
        point = rolling.dense().weight
        net[1].weight.copy_(point * torch.randn(1, 8, 3, 3).double())
    net.eval()
    found = decompose(net, "dw+rpw")
    images = torch.randn(2, 3, 12, 10, dtype=torch.float64)
    torch.testing.assert_close(found.model(images), net(images))
    assert found.model[1][1].bias is None


@torch.no_grad()
def test_the_fit_is_the_best_of_its_structure() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3)).double()
    best = decompose(net, "dw+rpw", groups=2)
    depthwise, rolling = best.model[1]
    dense = rolling.dense().weight * depthwise.weight.transpose(0, 1)
    error = (dense - net[1].weight).norm() / net[1].weight.norm()
    assert abs(float(error) - best.replacements[0].error) < 1e-6
    for _ in range(5):
        point = rolling.dense().weight + 0.01 * torch.randn(5, 8, 1, 1).double()
        other = point * (depthwise.weight.transpose(0, 1) + 0.01 * torch.randn(1, 8, 3, 3).double())
        other = other * (dense != 0)
        assert (other - net[1].weight).norm() >= (dense - net[1].weight).norm()


def test_pointwise_convolutions_behind_depthwise_ones_roll() -> None:
    found = decompose(create_model("mobilenet_v1_025", **CIFAR), "dw+rpw")
    assert len(found.replacements) == 13
    assert sum(isinstance(module, RollingPointwise2d) for module in found.model.modules()) == 13
    assert found.model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_channels_that_groups_do_not_divide_are_kept_and_listed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 9, 3), nn.Conv2d(9, 8, 3), nn.Conv2d(8, 8, 3))
    found = decompose(net, "dw+rpw")
    assert found.kept == {"1": "2 groups do not divide 9 channels"}
    assert [entry.name for entry in found.replacements] == ["2"]


def test_latency_is_measured_and_kept_to() -> None:
    found = optimize("vgg16", (1, 3, 32, 32), base_width=4, move=False, time=True, **CIFAR)
    assert found.before.latency_s is not None
    assert found.after.latency_s is not None
    with pytest.raises(UserError, match="`latency` cannot be met"):
        optimize("vgg16", base_width=4, move=False, latency=1e-6, **CIFAR)


def test_mistakes_are_answered_with_what_would_work() -> None:
    for arguments, words in (
        ({"model": "shufflenet_v2_050"}, "no option `depths`"),
        ({"model": nn.Conv2d(3, 3, 3)}, "no configuration to rewrite"),
        ({"model": "resnet20_cifar", "base_width": 4, "params": 0.0}, "`params` must be a positive share"),
        ({"model": "resnet20_cifar", "base_width": 4, "params": 0.01}, "`params` cannot be met"),
        ({"model": "resnet20_cifar", "base_width": 4, "kernel": "gpw"}, "`kernel` must be one of"),
        ({"model": "ran26", "base_width": 4, "kernel": "dw+pw"}, "no convolution that 'dw\\+pw' could replace"),
    ):
        with pytest.raises(UserError, match=words):
            optimize(**arguments)


def test_the_command_line() -> None:
    runner = CliRunner()
    arguments = ["optimize", "vgg16", "--set", "stem=cifar", "--width", "4", "--remove-only", "--kernel", "dw+rpw"]
    shown = runner.invoke(app, arguments)
    assert shown.exit_code == 0, shown.stderr
    assert "depths=[2, 2, 3, 2, 1]" in shown.stdout
    assert shown.stdout.rstrip().endswith("kernel='dw+rpw', groups=2, overlap=0.5).model")
    record = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert record["kwargs"]["depths"] == [2, 2, 3, 2, 1]
    assert record["stages"][3]["portion_after"] == 1
    mistake = runner.invoke(app, ["optimize", "resnet20_cifar", "--macs", "-1"])
    assert mistake.exit_code == 2
    assert "`macs` must be a positive share" in mistake.stderr
