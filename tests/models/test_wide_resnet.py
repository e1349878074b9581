import pytest
import torch
import torch.nn.functional as F
from counting import counts
from torch import Tensor, nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.models.wide_resnet import WideResNet

#: Depth, widen factor, parameters and MACs for ten classes; calculated from the authors' table and code.
COUNTS = [
    (10, 1, 77_850, 12_501_632),
    (10, 2, 303_706, 44_483_840),
    (16, 1, 175_066, 26_657_408),
    (16, 2, 691_674, 101_106_944),
    (16, 4, 2_748_890, 392_612_352),
    (16, 8, 10_961_370, 1_548_145_664),
    (16, 10, 17_116_634, 2_412_173_568),
    (22, 8, 17_158_106, 2_454_115_328),
    (22, 10, 26_797_914, 3_827_751_168),
    (28, 1, 369_498, 54_968_960),
    (28, 4, 5_849_050, 845_597_184),
    (28, 12, 52_517_850, 7_543_905_792),
    (40, 1, 563_930, 83_280_512),
    (40, 2, 2_243_546, 327_599_360),
    (40, 8, 35_748_314, 5_172_024_320),
    (40, 10, 55_841_754, 8_074_483_968),
]


@pytest.mark.parametrize(("depth", "factor", "params", "macs"), COUNTS)
def test_counts_beside_the_golden_ones(depth: int, factor: int, params: int, macs: int) -> None:
    assert counts("wrn28_10", (1, 3, 32, 32), depth=depth, widen_factor=factor) == (params, macs)


def test_counts_for_a_hundred_classes() -> None:
    assert counts("wrn28_10", (1, 3, 32, 32), num_classes=100) == (36_536_884, 5_243_386_368)


@pytest.mark.parametrize(("name", "depth", "factor"), [("wrn16_8", 16, 8), ("wrn40_8", 40, 8)])
def test_names_mean_their_sizes(name: str, depth: int, factor: int) -> None:
    assert counts(name, (1, 3, 32, 32)) in [(p, m) for d, f, p, m in COUNTS if (d, f) == (depth, factor)]


def reference(state: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """The network written down flat, with average pooling over its 8x8 maps, from the paper's figure 1 and table 1."""

    def normalised(y: Tensor, key: str) -> Tensor:
        mean, var, weight, bias = (state[f"{key}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(y, mean, var, weight, bias))

    x = F.conv2d(x, state["stem.weight"], padding=1)
    for stage, stride in enumerate((1, 2, 2)):
        for index in range(blocks):
            key, step = f"stages.{stage}.{index}", stride if index == 0 else 1
            before = normalised(x, f"{key}.bn1")
            y = F.conv2d(before, state[f"{key}.conv1.weight"], stride=step, padding=1)
            y = F.conv2d(normalised(y, f"{key}.bn2"), state[f"{key}.conv2.weight"], padding=1)
            projection = state.get(f"{key}.shortcut.weight")
            x = y + (x if projection is None else F.conv2d(before, projection, stride=step))
    x = F.avg_pool2d(normalised(x, "head.0"), 8).flatten(1)
    return F.linear(x, state["head.2.fc.weight"], state["head.2.fc.bias"])


@pytest.mark.parametrize("factor", [1, 2])
def test_outputs_are_those_of_the_network_written_down_flat(factor: int) -> None:
    model = WideResNet(16, factor).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    model.eval()
    has_projection = [isinstance(stage[0].shortcut, nn.Conv2d) for stage in model.stages]
    assert has_projection == [factor > 1, True, True]
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert_close(model(x), reference(dict(model.state_dict()), x, blocks=2), rtol=1e-10, atol=1e-10)


def test_dropout_stands_between_the_convolutions_while_training() -> None:
    model = WideResNet(10, 1, dropout=0.3)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [module.p for module in dropouts] == [0.3] * 3
    x = torch.randn(2, 3, 32, 32)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_initial_weights_follow_the_fan_out() -> None:
    model = WideResNet(10, 4)
    assert_close(model.stages[2][0].conv1.weight.std(), torch.tensor((2 / (9 * 256)) ** 0.5), rtol=0.02, atol=0)
    assert_close(model.stages[2][0].shortcut.weight.std(), torch.tensor((2 / 256) ** 0.5), rtol=0.02, atol=0)
    assert model.head[2].fc.bias.abs().sum() == 0


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"depth": 27}, "`depth` must be 6 n .* got 27; 28 would work"),
        ({"depth": 4}, "`depth` .* got 4; 10 would work"),
        ({"widen_factor": 0}, "`widen_factor` .* got 0; 1 would work"),
        ({"widen_factor": 1.5}, "`widen_factor` .* got 1.5"),
        ({"dropout": 1.0}, "`dropout` .* got 1.0; 0.2 would work"),
        ({"dropout": -0.1}, "`dropout`"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        WideResNet(**kwargs)
