"""Conversion of whole networks: exact at full rank, what is left alone, what is refused."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import images, networks, small_net
from torch import Tensor, nn
from torch.testing import assert_close

from leanconv.compression import (
    CP,
    ChannelDecomposition,
    Decoupled,
    DepthwiseDecomposition,
    Method,
    NetworkDecoupling,
    SpatialSVD,
    TensorTrain,
    Tucker,
    convert,
    merge_pointwise,
)
from leanconv.compression.patches import outputs_at, patches_at, sample_positions
from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.ops import DepthwiseSeparableConv2d
from leanconv.ops.structured import geometry_of

FULL: list[Method] = [
    DepthwiseDecomposition(1.0),
    NetworkDecoupling(1.0),
    NetworkDecoupling(1.0, order="pointwise"),
    Decoupled(1.0),
    SpatialSVD(1.0),
    ChannelDecomposition(1.0),
    Tucker(1.0),
    CP(1.0),
    TensorTrain(1.0),
]
by_method = pytest.mark.parametrize("method", FULL, ids=lambda method: f"{type(method).__name__}")


# Fewer samples than unknowns do no harm where nothing is cut.
@pytest.mark.filterwarnings("ignore:.*fewer samples than they have unknowns")
@by_method
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(network=networks(), with_data=st.booleans())
def test_full_rank_keeps_the_network(method: Method, network: tuple[nn.Module, Tensor], with_data: bool) -> None:
    model, x = network
    try:
        result = convert(model, method, inputs=[x] if with_data else None, positions=200)
    except UserError as error:
        assert "leave no convolution" in str(error)  # noqa: PT017
        return
    assert result.record.layers
    assert_close(result.model(x), model(x), rtol=1e-6, atol=1e-6)


@settings(max_examples=25)
@given(network=networks())
def test_sampled_patches_are_what_the_convolution_reads(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    conv: Any = model[0]
    y = conv(x)
    positions = sample_positions(len(x), tuple(y.shape[2:]), 5, torch.Generator().manual_seed(0))
    patches = patches_at(x, geometry_of(conv), tuple(y.shape[2:]), positions)
    expected = patches.flatten(1) @ conv.weight.flatten(1).T + conv.bias
    assert_close(outputs_at(y, positions), expected)


@by_method
def test_data_lowers_the_error_of_truncated_layers(method: Method) -> None:
    model, x = small_net(), images(256)
    if isinstance(method, NetworkDecoupling):
        pytest.skip("its factors come from the weights alone")
    cut = method.with_rank((0.4,))  # type: ignore[arg-type]
    blind = convert(model, cut).model
    aware = convert(model, cut, inputs=[x], positions=64).model
    fresh = torch.randn(128, 3, 8, 8)
    with torch.no_grad():
        errors = [float((net(fresh) - model(fresh)).norm()) for net in (blind, aware)]
    assert errors[1] < errors[0]


def test_later_layers_make_good_what_earlier_ones_lost() -> None:
    model, x = small_net(), images(256)
    both = {"0": DepthwiseDecomposition(1), "3": ChannelDecomposition(1.0)}
    target = model[:4](x)
    asymmetric = convert(model, both, inputs=[x], positions=64).model[:4](x)
    alone = convert(model, DepthwiseDecomposition(1), where="0", inputs=[x], positions=64).model[:4](x)
    assert (asymmetric - target).norm() < 0.9 * (alone - target).norm()


def test_original_is_untouched_and_the_copy_keeps_hooks_type_and_mode() -> None:
    model = small_net().bfloat16().train()
    model[3].eval()
    calls: list[int] = []
    model[3].register_forward_hook(lambda *_: calls.append(1))
    before = copy.deepcopy(model.state_dict())
    result = convert(model, DepthwiseDecomposition(3), inputs=[images()])
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert type(model[3]) is nn.Conv2d
    assert isinstance(result.model[3], DepthwiseSeparableConv2d)
    assert {p.dtype for p in result.model.parameters()} == {torch.bfloat16}
    assert all(p.requires_grad for p in result.model.parameters())
    assert result.model.training
    assert not result.model[3].training
    calls.clear()
    result.model(images().bfloat16())
    assert calls == [1]


def test_shared_modules_stay_shared() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.alias = self.conv

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.alias(torch.tanh(self.conv(x)))
            return y

    model, x = Twice().eval(), torch.randn(16, 4, 6, 6)
    result = convert(model, DepthwiseDecomposition(1.0), inputs=[x])
    assert len(result.record.layers) == 1
    assert result.record.layers[0].samples == 2 * 16 * 10
    assert result.model.conv is result.model.alias
    assert_close(result.model(x), model(x), rtol=1e-4, atol=1e-5)


def test_layers_that_are_never_called_are_left_and_reported() -> None:
    model = small_net()
    model.add_module("spare", nn.Identity())
    model.spare.conv = nn.Conv2d(3, 3, 3)
    result = convert(model, DepthwiseDecomposition(2), inputs=[images()])
    assert result.record.left == {"spare.conv": "it is not called"}
    assert [layer.name for layer in result.record.layers] == ["0", "3"]


def test_a_lone_convolution_is_converted_itself() -> None:
    conv = nn.Conv1d(4, 6, 3)
    result = convert(conv, ChannelDecomposition(1.0))
    x = torch.randn(2, 4, 9)
    assert_close(result.model(x), conv(x))


def test_ranks_are_clamped_fractions_or_numbers() -> None:
    conv = nn.Conv2d(8, 16, 3)
    assert DepthwiseDecomposition(99).rank_for(conv) == (9,)
    assert DepthwiseDecomposition(0.5).rank_for(conv) == (4,)
    assert Tucker((2, 0.5)).rank_for(conv) == (2, 8)
    assert all(0 < rank[0] < 16 for rank in ChannelDecomposition().candidates(conv))
    for wrong in (0, 1.5, -1, True, "2"):
        with pytest.raises(UserError, match="`rank` must be a positive integer or a fraction"):
            DepthwiseDecomposition(wrong)  # type: ignore[arg-type]


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y * torch.rand(1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"config": DepthwiseDecomposition()}, "leaves it to the planner"),
        ({"where": "stem*"}, "`where` 'stem\\*' matches no convolution"),
        ({"config": {"9": DepthwiseDecomposition(1)}}, "`config` '9' matches no convolution"),
        ({"where": lambda *_: False}, "leave no convolution to convert"),
        ({"model": nn.Linear(3, 3)}, "no convolution"),
        ({"model": Random()}, "another output each time"),
        ({"inputs": []}, "no samples"),
        ({"inputs": [torch.full((2, 3, 8, 8), torch.nan)]}, "batch 0 holds NaN"),
        ({"inputs": [torch.randn(2, 4, 8, 8)]}, "do not fit the model"),
        ({"inputs": [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 9, 9)]}, "samples of one shape"),
        ({"inputs": [torch.zeros(2, 3, 8, 8, dtype=torch.uint8)]}, "floating-point samples"),
        ({"images": 0}, "`images` must be at least 1"),
        ({"positions": 0}, "`positions` must be at least 1"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], sentence: str) -> None:
    arguments: dict[str, Any] = {"model": small_net(), "config": DepthwiseDecomposition(1), "inputs": [images()]}
    with pytest.raises(UserError, match=sentence):
        convert(**arguments | change)


def test_computed_weights_are_refused() -> None:
    model = small_net()
    torch.nn.utils.parametrizations.weight_norm(model[3])
    with pytest.raises(UserError, match="'3' has a weight that is computed"):
        convert(model, DepthwiseDecomposition(1))
    assert convert(model, DepthwiseDecomposition(1), where="0").record.layers


def test_few_samples_warn_and_stay_near_the_trained_kernel() -> None:
    model, x = small_net(), images(2)
    with pytest.warns(UserWarning, match="72 samples are the least"):
        result = convert(model, ChannelDecomposition(0.9), inputs=[x], positions=10)
    fresh = images(64)
    assert (result.model(fresh) - model(fresh)).norm() < 0.5 * model(fresh).norm()


def test_a_fit_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(DepthwiseDecomposition, "fit", fail)
    model = small_net()
    result = convert(model, {"0": DepthwiseDecomposition(1), "3": ChannelDecomposition(0.5)})
    assert result.record.left == {"0": "its fit failed numerically"}
    assert type(result.model[0]) is nn.Conv2d


def test_networks_of_the_zoo_and_of_others_convert() -> None:
    for name in ("resnet20_cifar", "mobilenet26_cifar"):
        model = create_model(name, base_width=8).eval()
        result = convert(model, DepthwiseDecomposition(1.0))
        x = torch.randn(2, 3, 32, 32)
        assert_close(result.model(x), model(x), rtol=1e-4, atol=1e-4)


def test_merged_pairs_equal_the_network_and_decompose_into_depthwise_and_pointwise() -> None:
    torch.manual_seed(3)
    unit = nn.Sequential(
        nn.Conv2d(6, 6, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 6, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
    )
    unit(torch.randn(32, 6, 9, 9))
    unit.eval()
    x = torch.randn(4, 6, 9, 9)
    merged = merge_pointwise(unit)
    assert_close(merged(x), unit(x), rtol=1e-5, atol=1e-5)
    assert [type(layer) for layer in merged[3:6]] == [nn.Conv2d, nn.Identity, nn.Identity]
    small = convert(merged, DepthwiseDecomposition(1), inputs=[torch.randn(64, 6, 9, 9)], positions=25).model
    assert isinstance(small[3], DepthwiseSeparableConv2d)
    with pytest.raises(UserError, match="no convolution that is directly followed"):
        merge_pointwise(merged)
