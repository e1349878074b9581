import pytest
import torch
import torch.nn.functional as F
from counting import counts
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.addressnet import AddressModule


def norm_parameters(name: str) -> int:
    with torch.device("meta"):
        model = create_model(name)
    return sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())


@pytest.mark.parametrize("name", ["addressnet32", "addressnet32_shuffle"])
def test_depth_32_has_both_printed_sizes(name: str) -> None:
    """0.14 M parameters, without those of batch norm, and 37.3 M MACs (WACV poster)."""
    params, macs = counts(name, (1, 3, 32, 32))
    assert (params - norm_parameters(name), macs) == (143_620, 37_279_104)


@pytest.mark.parametrize(
    ("options", "params", "macs", "macs_of_wide_stem"),
    [
        ({}, 3.91, 673, 721),
        ({"expand_input": True}, 3.70, 571, 619),
        ({"shortcut": "pad"}, 4.11, 708, 756),
        ({"shortcut": "project"}, 4.51, 761, 809),
    ],
)
def test_readings_of_the_imagenet_table(options: dict, params: float, macs: int, macs_of_wide_stem: int) -> None:
    """Calculated by hand from the poster's table; the paper prints no totals."""
    size = (1, 3, 224, 224)
    counted = counts("addressnet_imagenet", size, **options)
    assert (round(counted[0] / 1e6, 2), round(counted[1] / 1e6)) == (params, macs)
    assert round(counts("addressnet_imagenet", size, stem_kernel=7, **options)[1] / 1e6) == macs_of_wide_stem


@pytest.mark.parametrize(("depth", "modules"), [(20, 3), (32, 5), (44, 7)])
def test_layers_of_the_cifar_networks(depth: int, modules: int) -> None:
    with torch.device("meta"):
        model = create_model(f"addressnet{depth}")
        features = create_model(f"addressnet{depth}", features_only=True)(torch.empty(2, 3, 32, 32))
    assert [len(stage) for stage in model.stages] == [modules] * 3
    assert [tuple(feature.shape[1:]) for feature in features] == [(48, 32, 32), (72, 16, 16), (96, 8, 8)]


def by_hand(module: AddressModule, x: torch.Tensor, stride: int, shuffled: bool) -> torch.Tensor:
    """The main branch with shifts carried out one after the other, zeros at borders."""
    y = module.reduce(x)
    y = nn.ChannelShuffle(4)(y) if shuffled else y.roll(-y.shape[1] // 8, 1)
    padded = F.pad(y, (1, 1, 1, 1))
    height, width = y.shape[2:]
    moves = ((1, 2), (2, 1), (1, 0), (0, 1))  # first row and column read: left, up, right, down
    parts = [
        part[:, :, row : row + height, column : column + width]
        for part, (row, column) in zip(padded.chunk(4, 1), moves, strict=True)
    ]
    return module.norm(F.conv2d(torch.cat(parts, 1), module.address.conv.weight, stride=stride, groups=4))


@pytest.mark.parametrize("mixing", ["shift", "shuffle"])
@pytest.mark.parametrize(("out_channels", "stride", "shortcut"), [(8, 1, "concat"), (16, 2, "concat"), (16, 2, "pad")])
def test_module_equals_its_steps(out_channels: int, stride: int, shortcut: str, mixing: str) -> None:
    module = AddressModule(8, out_channels, stride, mixing=mixing, border="zeros", shortcut=shortcut).eval()
    x = torch.randn(2, 8, 13, 12)
    with torch.no_grad():
        y = by_hand(module, x, stride, mixing == "shuffle")
        pooled = F.avg_pool2d(x, 3, 2, 1) if stride == 2 else x
        if stride == 1:
            expected = pooled + y
        elif shortcut == "concat":
            expected = torch.cat((pooled, y), 1)
        else:
            expected = torch.cat((pooled, torch.zeros_like(pooled)), 1) + y
        assert_close(module(x), expected.relu(), rtol=1e-5, atol=1e-5)


def test_enhanced_modules_keep_the_halves_of_the_last_two() -> None:
    stage = create_model("addressnet20_enhanced", widths=(16, 24, 32)).eval().stages[0]
    x = torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        first = stage[0](x)
        second = stage[1](first)
    assert torch.equal(first[:, :8], x[:, 8:])
    assert torch.equal(second[:, :8], first[:, 8:])


def test_inference_reads_in_place_what_training_shifts() -> None:
    model = create_model("addressnet20").eval()
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    with torch.inference_mode():
        assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert_close(torch.export.export(model, (x,)).module()(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("addressnet32", {"depth": 33}, "`depth` must be 6 n .* got 33; 32 would work"),
        ("addressnet32", {"groups": 5}, "`groups` must divide"),
        ("addressnet32", {"mixing": "roll"}, "`mixing`"),
        ("addressnet32", {"border": "wrap"}, "`border`"),
        ("addressnet32", {"shortcut": "none"}, "`shortcut`"),
        ("addressnet32", {"shortcut": "concat", "widths": (48, 48, 96)}, "`out_channels` must exceed"),
        ("addressnet32", {"widths": (48, 96)}, "`widths`"),
        ("addressnet_imagenet", {"stem_kernel": 4}, "`stem_kernel` must be odd, got 4; 5 would work"),
        ("addressnet_imagenet", {"base_width": 6}, "`groups` must divide"),
    ],
)
def test_wrong_arguments_are_named(name: str, options: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        create_model(name, **options)
