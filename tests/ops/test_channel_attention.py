"""What every form of channel attention shares."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from leanconv.ops import ECA, SqueezeExcitation, UnsharedECA

FORMS: dict[str, Callable[[int], nn.Module]] = {
    "eca": lambda channels: ECA(channels, 5),
    "eca_adaptive": lambda channels: ECA(channels, "adaptive"),
    "unshared_eca": UnsharedECA,
    "se": lambda channels: SqueezeExcitation(channels, 2),
    "se_no_bias": lambda channels: SqueezeExcitation(channels, 3, bias=False),
}
every_form = pytest.mark.parametrize("form", list(FORMS))
SHAPES = {1: (2, 8, 9), 2: (2, 8, 5, 7), 3: (2, 8, 3, 4, 5)}
every_dims = pytest.mark.parametrize("dims", list(SHAPES))


@every_dims
@every_form
def test_scales_depend_on_the_averages_alone(form: str, dims: int) -> None:
    module = FORMS[form](8).double()
    x = torch.randn(SHAPES[dims], dtype=torch.float64)
    scales = module(x) / x
    assert_close(scales, scales.flatten(2)[..., :1].expand(-1, -1, x[0, 0].numel()).reshape(x.shape))
    assert 0 < scales.min() < scales.max() < 1
    constant = x.flatten(2).mean(2).reshape(*x.shape[:2], *[1] * dims).expand_as(x)
    assert_close(module(constant) / constant, scales)


@every_form
def test_gradients_match_finite_differences(form: str) -> None:
    module = FORMS[form](4).double()
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    module(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert torch.autograd.gradcheck(module, (x,), fast_mode=True)


@pytest.mark.parametrize("transform", ["export", "compile"])
@every_dims
@every_form
def test_graph_capture_keeps_the_result(form: str, dims: int, transform: str) -> None:
    module = FORMS[form](8).double().eval()
    x = torch.randn(SHAPES[dims], dtype=torch.float64)
    captured: Callable[[torch.Tensor], torch.Tensor]
    if transform == "export":
        captured = torch.export.export(module, (x,)).module()
    else:
        torch.compiler.reset()
        captured = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert_close(captured(x), module(x), rtol=1e-12, atol=1e-12)


@every_form
def test_state_dict_empty_batch_and_meta_device(form: str) -> None:
    first, second = FORMS[form](8), FORMS[form](8)
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(first(x), second(x))
    assert first(torch.zeros(0, 8, 5, 5)).shape == (0, 8, 5, 5)
    with torch.device("meta"):
        assert FORMS[form](8)(torch.empty(3, 8, 5)).shape == (3, 8, 5)
