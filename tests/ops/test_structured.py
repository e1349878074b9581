"""The property suite of every registered operator: a new one joins it by being registered."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import inputs, operators
from torch.testing import assert_close

from leanconv.ops import OPERATORS
from leanconv.ops.structured import CONV, StructuredConv

SETTINGS = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
#: Both sides sum the same float64 products in another order; the largest sums here have about 500 terms.
FLOAT64 = {"rtol": 1e-10, "atol": 1e-10}

every_operator = pytest.mark.parametrize("name", list(OPERATORS))


def example(name: str) -> StructuredConv:
    cls = OPERATORS[name]
    return cls(**cls.examples[0]).double()


@every_operator
@SETTINGS
@given(data=st.data())
def test_forward_equals_its_dense_convolution(name: str, data: st.DataObject) -> None:
    operator = data.draw(operators(name))
    x = torch.randn(data.draw(inputs(operator)), dtype=torch.float64)
    dense = operator.dense().double()  # an operator without weights has no dtype of its own
    assert type(dense) is CONV[operator.dims]
    assert_close(operator(x), dense(x), **FLOAT64)


@every_operator
@SETTINGS
@given(data=st.data())
def test_from_dense_recovers_what_the_structure_can_express(name: str, data: st.DataObject) -> None:
    operator = data.draw(operators(name))
    x = torch.randn(data.draw(inputs(operator)), dtype=torch.float64)
    options = {key: getattr(operator, key) for key in operator.fit_options}
    fitted = type(operator).from_dense(operator.dense(), **options)
    assert_close(fitted(x), operator(x), rtol=1e-7, atol=1e-7)  # square roots of singular values near zero


@every_operator
def test_gradients_match_finite_differences(name: str) -> None:
    operator = example(name)
    sizes = [max(e, max(p) + 1) for e, p in zip(operator.geometry.extent, operator.geometry.pads, strict=True)]
    x = torch.randn(1, operator.in_channels, *sizes, dtype=torch.float64, requires_grad=True)
    parameters = list(operator.parameters())
    for parameter in parameters:
        parameter.grad = None
    operator(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    assert torch.autograd.gradcheck(operator, (x,), fast_mode=True)


@pytest.mark.parametrize("transform", ["export", "compile"])
@every_operator
def test_graph_capture_keeps_the_result(name: str, transform: str) -> None:
    operator = example(name).eval()
    sizes = [extent + 4 for extent in operator.geometry.extent]
    x = torch.randn(2, operator.in_channels, *sizes, dtype=torch.float64)
    captured: Callable[[torch.Tensor], torch.Tensor]
    if transform == "export":
        captured = torch.export.export(operator, (x,)).module()
    else:
        torch.compiler.reset()
        captured = torch.compile(operator, fullgraph=True, backend="aot_eager")
    assert_close(captured(x), operator(x), **FLOAT64)


@every_operator
def test_state_dict_round_trip(name: str) -> None:
    cls = OPERATORS[name]
    first, second = cls(**cls.examples[0]), cls(**cls.examples[0])
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, first.in_channels, *[extent + 2 for extent in first.geometry.extent])
    assert torch.equal(first(x), second(x))


@every_operator
def test_meta_device_and_empty_batch_give_the_dense_shape(name: str) -> None:
    cls = OPERATORS[name]
    operator = cls(**cls.examples[0])
    sizes = [extent + 3 for extent in operator.geometry.extent]
    expected = operator.dense()(torch.zeros(1, operator.in_channels, *sizes)).shape
    assert operator(torch.zeros(0, operator.in_channels, *sizes)).shape == (0, *expected[1:])
    with torch.device("meta"):
        on_meta = cls(**cls.examples[0])
        assert on_meta(torch.empty(5, operator.in_channels, *sizes)).shape == (5, *expected[1:])
