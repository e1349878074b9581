import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from leanconv.ops.weighted_sum import weighted_sum


def grouped_pointwise(tensors: list[Tensor], weight: Tensor) -> Tensor:
    """The convolution it stands for: concatenate, shuffle the channels together, convolve in as many groups."""
    channels, count = weight.shape
    shuffled = torch.stack(tensors, 2).flatten(1, 2)
    return F.conv2d(shuffled, weight.view(channels, count, 1, 1), groups=channels)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_equals_the_grouped_pointwise_convolution_in_value_gradient_and_cost(count: int) -> None:
    tensors = [torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(count)]
    weight = torch.randn(5, count, dtype=torch.float64, requires_grad=True)
    results, costs = [], []
    for compute in (weighted_sum, grouped_pointwise):
        with FlopCounterMode(display=False) as counter:
            y = compute(tensors, weight)
        costs.append(counter.get_total_flops())
        results.append((y, *torch.autograd.grad(y.sin().sum(), (*tensors, weight))))
    assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)
    assert costs[0] == costs[1] > 0


def test_torch_accepts_it_as_an_operator() -> None:
    """Schema, aliasing, gradients and the meta device, as ``torch.library`` checks them."""
    tensors = [torch.randn(2, 3, 4, requires_grad=True) for _ in range(2)]
    torch.library.opcheck(torch.ops.leanconv.weighted_sum, (tensors, torch.randn(3, 2, requires_grad=True)))


def test_keeps_the_type_of_its_tensors() -> None:
    y = weighted_sum([torch.ones(1, 2, 3, dtype=torch.bfloat16)] * 2, torch.ones(2, 2))
    assert y.dtype == torch.bfloat16
    assert y.eq(2).all()
