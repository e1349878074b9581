"""Folding changes what a network consists of and never what it computes."""

import copy
import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trained import Residual, Sum, trained

from leanconv.deployment import fold
from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.ops import AxialConv1d, AxialConv2d, AxialConv3d, DepthwiseSeparableConv2d, TuckerConv2d
from leanconv.ops.geometry import PADDING_MODES

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def folded(model: nn.Module, x: Tensor, **options: object) -> nn.Module:
    """Fold, having checked that the result computes the same in both types."""
    model = trained(model)
    result = fold(model, **options)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        network = copy.deepcopy(model).to(dtype)
        same = fold(network, **options)
        with torch.no_grad():
            expected, found = network(x.to(dtype)), same(x.to(dtype))
        assert found.dtype == dtype
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    return result


def count(model: nn.Module, *kinds: type[nn.Module]) -> int:
    return sum(isinstance(module, kinds) for module in model.modules())


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_batch_norm_goes_into_the_convolution_before_it(dims: int, mode: str) -> None:
    conv = type(CONVS[dims - 1](1, 1, 1))
    model = nn.Sequential(conv(4, 6, 3, 2, 1, 1, 2, False, mode), NORMS[dims](6), nn.ReLU())
    result = folded(model, torch.randn(2, 4, *(7, 5, 6)[:dims]))
    assert count(result, *NORMS.values()) == 0
    assert count(result, CONVS) == 1


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_goes_into_transposed_and_linear_layers(affine: bool) -> None:
    model = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, bias=False),
        nn.BatchNorm2d(6, affine=affine),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(6 * 10 * 6, 5),
        nn.BatchNorm1d(5, affine=affine),
    )
    result = folded(model, torch.randn(3, 4, 5, 3))
    assert count(result, nn.BatchNorm1d, nn.BatchNorm2d) == 0


def test_batch_norm_behind_a_linear_layer_stays_where_it_may_act_on_a_sequence() -> None:
    """On ``(N, L, C)`` batch norm acts on L, which is no output of the linear layer."""
    result = folded(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)), torch.randn(2, 5, 3))
    assert count(result, nn.BatchNorm1d) == 1


@pytest.mark.parametrize(
    ("conv", "goes"),
    [
        (nn.Conv2d(4, 6, 3), True),
        (nn.Conv2d(4, 6, 1, 2), True),
        (nn.Conv2d(4, 6, 3, padding=1), False),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), True),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), True),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), True),
    ],
)
def test_batch_norm_goes_into_the_convolution_after_it_unless_zeros_are_padded(conv: nn.Conv2d, goes: bool) -> None:
    result = folded(nn.Sequential(nn.BatchNorm2d(4), conv), torch.randn(2, 4, 7, 5))
    assert count(result, nn.BatchNorm2d) == (not goes)
    assert bool(result.fold_record.folds) == goes


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_residual_goes_into_the_kernel(groups: int, mode: str) -> None:
    conv = nn.Conv2d(4, 4, (3, 5), 1, "same", 2, groups, False, mode)
    result = folded(Residual(nn.Sequential(conv, nn.BatchNorm2d(4))), torch.randn(2, 4, 9, 11))
    assert "add" not in result.code
    assert count(result, nn.BatchNorm2d) == 0


def test_a_residual_stays_where_shapes_only_broadcast() -> None:
    narrow = Residual(nn.Conv2d(4, 1, 1))
    assert not folded(narrow, torch.randn(2, 4, 5, 5)).fold_record.folds
    pooled = Residual(nn.Conv2d(4, 4, 5, 5))
    assert not folded(pooled, torch.randn(2, 4, 5, 5)).fold_record.folds


def test_parallel_branches_become_one() -> None:
    branches = (
        nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.BatchNorm2d(4)),
        nn.BatchNorm2d(4),
    )
    result = folded(Sum(*branches), torch.randn(2, 4, 7, 6))
    assert count(result, CONVS) == 1
    assert count(result, nn.BatchNorm2d) == 0
    strided = Sum(nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(4, 6, 1, 2), nn.Conv2d(4, 6, 5, 2, 2))
    assert count(folded(strided, torch.randn(2, 4, 7, 6)), CONVS) == 1


def test_parallel_branches_of_different_padding_stay() -> None:
    model = Sum(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"))
    result = folded(model, torch.randn(2, 4, 7, 6))
    assert count(result, CONVS) == 2
    assert "pad differently" in str(result.fold_record)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_depthwise_axial_pair_becomes_one_kernel(stride: int, mode: str) -> None:
    pair = AxialConv2d(
        4, 4, 3, stride, "same", groups=4, bias=False, padding_mode=mode, residual=True, norm_layer=nn.BatchNorm2d
    )

    def dear_on_one_axis(module: nn.Module, _inputs: tuple[Tensor, ...]) -> float:
        return 9.0 if 1 in getattr(module, "kernel_size", ()) else 1.0

    result = folded(pair, torch.randn(2, 4, 9, 8), input_size=(2, 4, 9, 8), timing=dear_on_one_axis)
    feature_convs = [m for name, m in result.named_modules() if isinstance(m, nn.Conv2d) and "border" not in name]
    assert [m.kernel_size for m in feature_convs] == [(3, 3)]
    assert count(result, nn.BatchNorm2d) == 0
    # Only zeros that are padded let less of the first norm's shift arrive.
    assert ("with a map" in str(result.fold_record)) == (mode == "zeros")


@pytest.mark.parametrize("target", ["torch", "onnxruntime", "openvino"])
def test_the_map_at_borders_is_added_where_few_samples_are_left(target: str) -> None:
    def convs(stride: int, **options: object) -> int:
        pair = AxialConv2d(4, 4, 3, padding="same", groups=4, bias=False, residual=True, **options)
        model = nn.Sequential(pair, nn.AvgPool2d(stride) if stride > 1 else nn.Identity())
        result = folded(model, torch.randn(2, 4, 8, 8), target=target)
        return sum(isinstance(m, nn.Conv2d) and "border" not in name for name, m in result.named_modules())

    assert convs(1) == 1
    assert convs(1, norm_layer=nn.BatchNorm2d) == 2
    assert convs(2, norm_layer=nn.BatchNorm2d) == 1


def test_signals_and_volumes_fold_too() -> None:
    options = {"groups": 4, "residual": True, "bias": False}
    line = AxialConv1d(4, 4, 5, padding="same", norm_layer=nn.BatchNorm1d, **options)
    assert count(folded(line, torch.randn(2, 4, 9)), nn.BatchNorm1d) == 0
    volume = AxialConv3d(4, 4, 3, padding="same", norm_layer=nn.BatchNorm3d, **options)
    assert count(folded(volume, torch.randn(2, 4, 5, 6, 7)), nn.BatchNorm3d) == 0
    plain = AxialConv3d(4, 4, 3, padding="same", **options)
    plain = folded(plain, torch.randn(2, 4, 5, 6, 7), target="onnxruntime")
    assert [m.kernel_size for m in plain.modules() if isinstance(m, nn.Conv3d)] == [(3, 3, 3)]


def test_full_axial_pairs_stay_two_as_one_would_multiply_more() -> None:
    pair = AxialConv2d(8, 8, 3, padding="same", bias=False, residual=True, norm_layer=nn.BatchNorm2d)
    result = folded(pair, torch.randn(2, 8, 7, 7))
    assert count(result, CONVS) == 2
    assert "times as much" in str(result.fold_record) or "cost more" in str(result.fold_record)


def test_a_chain_merges_where_that_multiplies_less() -> None:
    wide = nn.Sequential(nn.Conv2d(4, 16, 1), nn.Conv2d(16, 4, 1))
    assert count(folded(wide, torch.randn(2, 4, 5, 5)), CONVS) == 1
    narrow = nn.Sequential(nn.Conv2d(16, 1, 1), nn.Conv2d(1, 16, 1))
    assert count(folded(narrow, torch.randn(2, 16, 5, 5)), CONVS) == 2
    into = nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), nn.Conv2d(16, 16, 3, padding=1))
    assert count(folded(into, torch.randn(2, 3, 5, 5)), CONVS) == 1
    separable = DepthwiseSeparableConv2d(16, 16, 3, padding=1)
    assert count(folded(separable, torch.randn(2, 16, 5, 5)), CONVS) == 2
    assert count(folded(TuckerConv2d(8, 8, 3, padding=1, rank=8), torch.randn(2, 8, 5, 5)), CONVS) == 1
    linears = nn.Sequential(nn.Linear(4, 16), nn.Dropout(), nn.Linear(16, 3))
    assert count(folded(linears, torch.randn(2, 5, 4)), nn.Linear) == 1


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.AvgPool2d(3, 2), nn.AvgPool2d(2, divisor_override=3)])
def test_average_pooling_goes_into_a_depthwise_convolution(pool: nn.Module) -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="replicate")
    result = folded(nn.Sequential(conv, pool), torch.randn(2, 4, 9, 7))
    assert count(result, nn.AvgPool2d) == 0


def test_average_pooling_that_pads_what_was_computed_stays() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    result = folded(nn.Sequential(conv, nn.AvgPool2d(2, padding=1)), torch.randn(2, 4, 9, 7))
    assert count(result, nn.AvgPool2d) == 1


def test_pooling_that_rounds_up_goes_in_where_the_size_is_known_and_even() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.AvgPool2d(2, ceil_mode=True))
    assert count(folded(model, torch.randn(2, 4, 9, 7)), nn.AvgPool2d) == 1
    assert count(folded(model, torch.randn(2, 4, 9, 7), input_size=(1, 4, 9, 7)), nn.AvgPool2d) == 1
    result = folded(model, torch.randn(2, 4, 8, 6), input_size=(1, 4, 8, 6))
    assert count(result, nn.AvgPool2d) == 0
    with pytest.raises(UserError, match=r"\(N, 4, 8, 6\)"):
        result(torch.randn(2, 4, 9, 7))


def test_ran_becomes_pointwise_and_depthwise_convolutions() -> None:
    """Of 21 convolutions and 8 pairs, with a norm after each, the strided pairs become one kernel."""
    result = folded(create_model("ran26", base_width=4), torch.randn(2, 3, 32, 32), input_size=(1, 3, 32, 32))
    convs = [m for name, m in result.named_modules() if isinstance(m, nn.Conv2d) and "border" not in name]
    kernels = [m.kernel_size for m in convs if m.groups > 1]
    assert kernels == [(3, 1), (1, 3), *[(4, 4), (3, 1), (1, 3)], *[(4, 4), *[(3, 1), (1, 3)] * 3], (4, 4)]
    assert len(convs) == 21 + len(kernels)
    assert count(result, nn.BatchNorm2d, nn.AvgPool2d) == 0


def test_repvgg_becomes_its_deployed_form() -> None:
    model = trained(create_model("repvgg_a0", base_width=8, depths=(1, 2, 2, 1))).double()
    result = fold(model)
    assert count(result, CONVS) == count(model.deployed(), CONVS)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(result(x), model.deployed()(x))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            x = F.relu(norm(self.conv(x)), inplace=True)
        return x + self.conv(x)


def test_a_convolution_used_thrice_is_folded_for_each_use() -> None:
    result = folded(Shared(), torch.randn(2, 4, 6, 6))
    assert count(result, nn.BatchNorm2d) == 0
    assert len([m for m in result.modules() if isinstance(m, nn.Conv2d)]) == 3


class Tapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) * y


def test_a_convolution_that_others_read_too_is_kept() -> None:
    result = folded(Tapped(), torch.randn(2, 3, 6, 6))
    assert "'conv', which it follows, is also read by others" in result.fold_record.kept["norm"]


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.act(x)
        y += self.norm(self.conv(x))  # reads what the activation wrote
        return y + x


class InPlaceView(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        half = x[:, :2]
        self.act(x)
        return torch.cat((half, self.norm(self.conv(x))), 1)


@pytest.mark.parametrize("kind", [InPlace, InPlaceView])
def test_operations_in_place_are_read_as_they_act(kind: Callable[[], nn.Module]) -> None:
    folded(kind(), torch.randn(2, 4, 5, 5))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(create_model("ran26", base_width=2).stages[0])
        self.block = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.block[1](self.block[0](x))
        if x.sum() > 0:
            return x
        for block in self.blocks:
            x = block(x)
        return x


def test_what_depends_on_data_is_folded_part_by_part() -> None:
    for x in (torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8) - 9):
        result = folded(Branching(), x)
    assert count(result, nn.BatchNorm2d) == 1
    assert "part by part" in result.fold_record.kept[""]
    outer = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), Branching())
    assert count(folded(outer, torch.randn(2, 3, 8, 8)), nn.BatchNorm2d) == 1


def test_hooks_go_on_being_called() -> None:
    model = trained(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.ReLU()))
    seen: list[Tensor] = []
    handle = model[0].register_forward_hook(lambda _module, _args, output: seen.append(output))
    result = fold(model)
    x = torch.randn(1, 3, 4, 4)
    result(x)
    assert len(seen) == 1
    assert result.fold_record.kept["0"] == "it has hooks"
    handle.remove()
    assert count(fold(model), nn.BatchNorm2d) == 0


def test_computed_weights_are_taken_as_they_are_now() -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    result = folded(nn.Sequential(conv, nn.BatchNorm2d(4)), torch.randn(2, 3, 5, 5))
    assert count(result, nn.BatchNorm2d) == 0


def test_batch_statistics_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    assert count(folded(model, torch.randn(2, 3, 5, 5)), nn.BatchNorm2d) == 1


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.body(x)
        return y if mask is None else y * mask


def test_arguments_with_defaults_are_fixed_at_them() -> None:
    result = folded(Optional(), torch.randn(1, 3, 4, 4))
    with pytest.raises(AssertionError, match="mask"):
        result(torch.randn(1, 3, 4, 4), torch.ones(1))


def test_the_original_is_left_alone() -> None:
    model = trained(create_model("ran26", base_width=2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = [type(m) for m in model.modules()]
    fold(model)
    assert [type(m) for m in model.modules()] == modules
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_mistakes_are_answered_with_what_would_work() -> None:
    model = create_model("ran26", base_width=2)
    with pytest.raises(UserError, match=r"training mode .*fold\(model.eval\(\)\)"):
        fold(model)
    with pytest.raises(UserError, match="onnxruntime"):
        fold(model.eval(), target="onnx")
    with pytest.raises(UserError, match="input_size"):
        fold(model.eval(), timing=lambda *_: 0.0)
    with pytest.raises(UserError, match=r"`input_size` \(1, 5, 8, 8\)"):
        fold(model.eval(), input_size=(1, 5, 8, 8))
    with pytest.raises(UserError, match="lazy"):
        fold(nn.Sequential(nn.LazyConv2d(3, 3)).eval())


def test_times_decide_where_they_are_measured() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    asked: list[tuple[str, tuple[int, ...]]] = []

    def slow_convs(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
        asked.append((type(module).__name__, tuple(inputs[0].shape)))
        return len([m for m in module.modules() if isinstance(m, nn.Conv2d) and m.bias is not None])

    model[0].bias = None
    result = fold(model, input_size=(2, 3, 8, 8), timing=slow_convs)
    assert count(result, nn.BatchNorm2d) == 1
    assert asked[:2] == [("Conv2d", (2, 3, 8, 8)), ("BatchNorm2d", (2, 4, 6, 6))]
    assert count(fold(model, input_size=(2, 3, 8, 8), timing=lambda module, _: 1.0), nn.BatchNorm2d) == 0


def test_the_record_is_json_and_says_why() -> None:
    result = fold(trained(create_model("ran26", base_width=2)))
    record = json.loads(json.dumps(result.fold_record.to_dict()))
    assert record["target"] == "torch"
    first = record["folds"][0]
    assert (first["layers"], first["became"]) == (["stem.0", "stem.1"], "stem.0")
    assert first["after"] < first["before"]
    assert all(fold["after"] < fold["before"] for fold in record["folds"])


@pytest.mark.parametrize("input_size", [None, (1, 3, 32, 32)])
def test_the_result_exports_and_compiles(input_size: tuple[int, ...] | None) -> None:
    result = fold(trained(create_model("ran26", base_width=2)), input_size=input_size)
    x = torch.randn(3, 3, 32, 32)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(result, (x,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(x[:2]), result(x[:2]))
    compiled = torch.compile(result, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), result(x))
