import pytest
import torch
from counting import counts
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.models import create_model, list_models

#: Channels read and written and samples written by the convolutions after the first.
LAYERS = [(32, 32, 128), (32, 64, 64), (64, 64, 64), (64, 128, 32), (128, 128, 32)]
#: Weights of such a convolution with five taps.
WEIGHTS = {
    "plain": lambda i, o: i * o * 5,
    "dilated": lambda i, o: i * o * 5,
    "grouped": lambda i, o: i * o * 5 // 4,
    "separable": lambda i, o: i * 5 + i * o,
    "axial": lambda i, o: i * 5 + i * o,
}


def test_every_operator_comes_with_and_without_residuals() -> None:
    names = [f"sensor6_{operator}{suffix}" for operator in WEIGHTS for suffix in ("", "_residual")]
    assert list_models("sensor6_*") == sorted(names)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("operator", WEIGHTS)
def test_sizes_follow_from_the_layers(operator: str, residual: bool) -> None:
    params = 9 * 32 * 5 + sum(WEIGHTS[operator](i, o) for i, o, _ in LAYERS)
    macs = 9 * 32 * 5 * 128 + sum(WEIGHTS[operator](i, o) * length for i, o, length in LAYERS)
    params += 2 * 2 * (32 + 64 + 128) + 128 * 6 + 6
    macs += 128 * 6
    if residual:
        params += 9 * 32 + 32 * 64 + 64 * 128 + 2 * (32 + 64 + 128)
        macs += 9 * 32 * 128 + 32 * 64 * 64 + 64 * 128 * 32
    name = f"sensor6_{operator}" + ("_residual" if residual else "")
    assert counts(name, (1, 9, 128)) == (params, macs)


def test_defaults_are_those_of_the_signals_and_six_convolutions_it_has() -> None:
    model = create_model("sensor6_plain")
    assert model.input_size == (9, 128)
    assert sum(isinstance(module, nn.Conv1d) for module in model.modules()) == 6
    assert model(torch.randn(2, 9, 128)).shape == (2, 6)
    features = create_model("sensor6_axial", in_channels=3, features_only=True)(torch.randn(2, 3, 99))
    assert [tuple(feature.shape) for feature in features] == [(2, 32, 99), (2, 64, 50), (2, 128, 25)]


def test_residual_stage_adds_its_input() -> None:
    stage = create_model("sensor6_separable_residual").eval().stages[1]
    x = torch.randn(2, 32, 20)
    assert_close(stage(x), (stage.second(stage.first(x)) + stage.shortcut(x)).relu())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"operator": "fourier"}, "`operator` must be one of plain, .* got 'fourier'"),
        ({"kernel_size": 4}, "`kernel_size` must be odd, got 4; 5 would work"),
        ({"operator": "grouped", "base_width": 6}, "`groups` must divide"),
        ({"dropout": 2.0}, "`dropout`"),
    ],
)
def test_wrong_arguments_are_named(options: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        create_model("sensor6_plain", **options)
