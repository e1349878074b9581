"""Networks that enlarge images: counts, wiring, where training starts, tiling, folding, export."""

import math

import pytest
import torch
import torch.nn.functional as F
from counting import counts
from torch import Tensor, nn

import leanconv as lc
from leanconv.errors import UserError
from leanconv.imresize import imresize
from leanconv.models import MODELS, create_model, list_models
from leanconv.models.drrn import UNITS
from leanconv.models.superres import Bicubic, check_scale

NETWORKS = list_models(purpose="superres")


def drawn(network: nn.Module) -> nn.Module:
    """The network as if it were trained: nothing left at zero, and outputs of the size of the image."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5 / math.sqrt(parameter[0].numel()))
    return network.eval().double()


def small(name: str, **options: object) -> nn.Module:
    return create_model(name, **{**MODELS[name].small, **options})


@pytest.mark.parametrize(
    ("name", "params", "macs_a_pixel"),
    [
        ("drrn_b1u9", 297_216, 2_656_512),
        ("drrn_b1u25", 297_216, 7_375_104),
        ("ran_drrn_b1u9", 19_072, 153_216),
        ("ran_drrn_b1u25", 19_072, 421_504),
        ("vdsr", 664_704, 664_704),
    ],
)
def test_counts_are_the_published_ones(name: str, params: int, macs_a_pixel: int) -> None:
    assert counts(name, (1, 1, 64, 48)) == (params, macs_a_pixel * 64 * 48)


@pytest.mark.parametrize(
    ("options", "params"),
    [
        ({"unit": "conv"}, 297_216),
        ({"unit": "bottleneck", "axial_ends": True}, 18_304),
        ({"unit": "bottleneck", "batch_norm": True}, 19_712),
        ({"unit": "single"}, 19_456),
        ({"unit": "single", "axial_ends": True}, 18_688),
        ({"unit": "depthwise"}, 3_840),
        ({"unit": "separable"}, 36_608),
        ({"unit": "alternating"}, 69_376),
        ({"unit": "full"}, 198_912),
        # A second block has its own entry convolution and its own pair.
        ({"unit": "conv", "blocks": 2}, 297_216 + 3 * 9 * 128**2),
    ],
)
def test_every_reading_has_its_count(options: dict, params: int) -> None:
    found, _ = counts("drrn_b1u9", (1, 1, 8, 8), **options)
    assert found == params


def test_drrn_adds_its_first_features_in_each_recursion() -> None:
    network = drawn(create_model("drrn_b1u9", width=4, recursions=3))
    x = torch.rand(2, 1, 9, 7, dtype=torch.float64)
    weights = [p for p in network.parameters() if p.shape[:2] == (4, 4)]
    entry = next(p for p in network.parameters() if p.shape[:2] == (4, 1))
    out = next(p for p in network.parameters() if p.shape[:2] == (1, 4))
    h = first = F.conv2d(x.relu(), entry, padding=1)
    for _ in range(3):
        h = first + F.conv2d(F.conv2d(h.relu(), weights[0], padding=1).relu(), weights[1], padding=1)
    torch.testing.assert_close(network(x), x + F.conv2d(h.relu(), out, padding=1))


def test_the_axial_unit_is_a_ran_block_without_norm() -> None:
    network = drawn(create_model("ran_drrn_b1u9", width=4, recursions=1))
    unit = network.blocks[0].unit
    h = torch.randn(1, 4, 6, 5, dtype=torch.float64)
    column, row = (convolution.weight for convolution in unit.axial.convolutions())
    u = F.conv2d(h.relu(), unit.reduce[0].weight).relu()
    v = u + F.conv2d(u, column, padding=(1, 0), groups=2)
    w = v + F.conv2d(v, row, padding=(0, 1), groups=2)
    torch.testing.assert_close(unit(h), F.conv2d(w.relu(), unit.expand[0].weight))


@pytest.mark.parametrize("axial_ends", [False, True])
def test_features_start_as_answers_to_detail_alone(axial_ends: bool) -> None:
    model = create_model("drrn_b1u9", width=8, recursions=1, axial_ends=axial_ends)
    features = model.blocks[0].entry(torch.full((1, 1, 9, 9), 0.5))[..., 2:-2, 2:-2]
    torch.testing.assert_close(features, torch.zeros_like(features), rtol=0, atol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("axial_ends", [False, True])
def test_gradients_reach_every_parameter_of_every_unit(unit: str, axial_ends: bool) -> None:
    network = drawn(create_model("drrn_b1u9", width=4, recursions=2, unit=unit, axial_ends=axial_ends))
    network(torch.rand(1, 1, 8, 8, dtype=torch.float64)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "vdsr"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_training_starts_from_the_bicubic_image(name: str, scale: int) -> None:
    low = torch.rand(1, 1, 9, 12)
    network = small(name, **({"scale": scale} if name == "lean_sr" else {}))
    enlarged = imresize(low, scale)
    found = network(low if network.upsamples else enlarged)
    torch.testing.assert_close(found, enlarged, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_tile_with_its_halo_is_the_whole_there_and_one_pixel_less_is_not(name: str) -> None:
    network = drawn(small(name, **({"recursions": 2} if "drrn" in name else {})))
    halo, factor = network.halo, network.scales[0] if network.upsamples else 1
    x = torch.rand(1, 1, 11, 2 * halo + 9, dtype=torch.float64)

    def tile(margin: int) -> Tensor:
        part = network(x[..., halo + 4 - margin : halo + 5 + margin])
        return part[..., margin * factor : (margin + 1) * factor]

    with torch.no_grad():
        whole = network(x)[..., (halo + 4) * factor : (halo + 5) * factor]
        torch.testing.assert_close(tile(halo), whole, atol=1e-12, rtol=0)
        assert (tile(halo - 1) - whole).abs().max() > 1e-12


@pytest.mark.parametrize("name", NETWORKS)
def test_folds_to_the_same_and_keeps_what_says_how_it_is_used(name: str) -> None:
    network = drawn(small(name))
    folded = lc.fold(network)
    x = torch.rand(2, 1, 13, 10, dtype=torch.float64)
    torch.testing.assert_close(folded(x), network(x), atol=1e-12, rtol=1e-10)
    for attribute in ("scales", "upsamples", "halo"):
        assert getattr(folded, attribute) == getattr(network, attribute)
    check_scale(folded, 2)


def test_folding_leaves_one_kernel_for_both_axes() -> None:
    depthwise = lc.fold(drawn(small("ran_drrn_b1u9")))
    assert any(m.groups > 1 and m.kernel_size == (3, 3) for m in depthwise.modules() if isinstance(m, nn.Conv2d))
    full = lc.fold(drawn(create_model("lean_sr", width=16, depth=6)))
    inside = sum(m.in_channels == 16 == m.out_channels for m in full.modules() if isinstance(m, nn.Conv2d))
    additions = sum(node.op == "call_function" for node in full.graph.nodes)
    assert (inside, additions) == (12, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_exports_and_compiles_whole_for_any_size(name: str) -> None:
    network = drawn(small(name))
    height, width = torch.export.Dim("height", min=8, max=64), torch.export.Dim("width", min=8, max=64)
    x = torch.rand(2, 1, 12, 16, dtype=torch.float64)
    program = torch.export.export(network, (x,), dynamic_shapes=({2: height, 3: width},))
    other = torch.rand(2, 1, 9, 21, dtype=torch.float64)
    torch.testing.assert_close(program.module()(other), network(other))
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), network(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_measures_and_rebuilds(name: str) -> None:
    network = small(name)
    report = lc.measure(network, (1, 1, 16, 16))
    assert report.params == sum(p.numel() for p in network.parameters())
    assert report.macs > 0
    again = create_model(network.config["name"], **network.config["kwargs"])
    assert again.state_dict().keys() == network.state_dict().keys()
    assert network.input_size[0] == 1


def test_the_baseline_changes_nothing() -> None:
    x = torch.rand(1, 1, 4, 5)
    assert Bicubic()(x) is x
    check_scale(Bicubic(), 7)


def test_mistakes_are_answered_with_what_would_work() -> None:
    with pytest.raises(UserError, match=r"`scale` 5 is none .*2 or 3 or 4 would work"):
        check_scale(small("vdsr"), 5)
    with pytest.raises(UserError, match="3 would work"):
        check_scale(small("lean_sr", scale=3), 2)
    with pytest.raises(UserError, match="enlarges no images"):
        check_scale(nn.ReLU(), 2)
    with pytest.raises(UserError, match="leave out `num_classes`"):
        create_model("vdsr", num_classes=10)
    with pytest.raises(UserError, match="luma plane, got `in_channels` 3"):
        create_model("vdsr", in_channels=3)
    with pytest.raises(UserError, match="did you mean 'bottleneck'"):
        create_model("drrn_b1u9", unit="bottlenek")
    with pytest.raises(UserError, match=r"`batch_norm` goes with"):
        create_model("drrn_b1u9", batch_norm=True)
    with pytest.raises(UserError, match="`recursions` must be a positive integer, got 0"):
        create_model("drrn_b1u9", recursions=0)
    with pytest.raises(UserError, match=r"`scales` must be whole numbers.*got \(1, 2\)"):
        create_model("vdsr", scales=(1, 2))
    with pytest.raises(UserError, match="`scale` must be a whole number"):
        create_model("lean_sr", scale=2.5)
    with pytest.raises(UserError, match="`kernel_size` odd"):
        create_model("lean_sr", kernel_size=4)
    with pytest.raises(UserError, match="`depth` must be at least 2"):
        create_model("vdsr", depth=1)
