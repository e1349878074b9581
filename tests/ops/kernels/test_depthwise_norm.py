"""The fused operator against torch's own operators in double precision."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from leanconv.errors import UserError
from leanconv.ops.kernels.depthwise_norm import NO_ACTIVATION, RELU, RELU6, Options, depthwise_norm, supported
from leanconv.ops.kernels.library import library

needs_kernel = pytest.mark.skipif(library() is None, reason="no C++ compiler here")


def reference(
    x: Tensor,
    weight: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    added: Tensor | None = None,
    eps: float = 1e-5,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    residual: bool = False,
    upper: float = NO_ACTIVATION,
) -> Tensor:
    y = x if weight is None else F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])
    y = F.batch_norm(y, None, None, gamma, beta, training=True, eps=eps)
    y = y + x if residual else y
    y = y if added is None else y + added
    return y if upper == NO_ACTIVATION else y.clamp(0, upper)


def compare(
    inputs: list[Tensor | None], *options: object, dtype: torch.dtype = torch.float32, factor: float = 1
) -> None:
    """Compare results and all gradients; errors are measured by the largest entry, as sums cancel."""
    ours = [leaf if leaf is None else leaf.clone().requires_grad_() for leaf in inputs]
    exact = [leaf if leaf is None else leaf.double().requires_grad_() for leaf in inputs]
    y, mean, variance, inverse = depthwise_norm(*ours, 1e-5, *options)  # type: ignore[arg-type]
    z = reference(*exact, 1e-5, *options)  # type: ignore[arg-type]
    gradient = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    y.backward(gradient)
    z.backward(gradient.double())
    # Sums of up to hundreds of rounded products; gradients of weights are what is left where most of a sum cancels.
    tolerance = factor * 100 * torch.finfo(dtype).eps
    pairs = {"y": (y, z)}
    for name, a, b in zip(("x", "weight", "gamma", "beta", "added"), ours, exact, strict=True):
        if a is not None and b is not None:
            pairs[name] = (a.grad, b.grad)
    for name, (found, expected) in pairs.items():
        scale = max(float(expected.detach().abs().max()), 1.0)
        assert_close(
            found.double() / scale, expected / scale, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )
    kernel_input = inputs[0].double()
    if inputs[1] is not None:
        kernel_input = F.conv2d(kernel_input, inputs[1].double(), None, *options[:3], inputs[0].shape[1])
    # Of any geometry, statistics may be of two numbers far from zero, and are as exact as these are.
    scale = 1.0 if factor == 1 else max(1.0, float(kernel_input.abs().max()))
    assert_close(mean.double(), kernel_input.mean((0, 2, 3)), rtol=1e-5, atol=1e-6 * scale)
    assert_close(variance.double(), kernel_input.var((0, 2, 3), correction=0), rtol=1e-5, atol=1e-6 * scale**2)
    assert_close(inverse.double(), (variance.double() + 1e-5).rsqrt(), rtol=1e-6, atol=0)


def tensors(
    shape: tuple[int, int, int, int], kernel: tuple[int, int] | None, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[Tensor | None]:
    """Images, weights, and parameters of a norm that are not at their start."""
    random = torch.Generator().manual_seed(seed)
    channels = shape[1]
    x = torch.randn(shape, generator=random).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = None if kernel is None else torch.randn(channels, 1, *kernel, generator=random)
    gamma, beta = (torch.randn(channels, generator=random) for _ in range(2))
    return [x, weight, gamma, beta, None]


KERNELS = {(3, 1): (1, 0), (1, 3): (0, 1), (7, 1): (3, 0), (1, 7): (0, 3), (5, 1): (2, 0), (3, 3): (1, 1)}


@needs_kernel
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("shape", [(2, 16, 8, 8), (3, 21, 5, 9), (4, 40, 2, 3), (1, 17, 13, 2), (2, 40, 19, 33)])
def test_axial_and_square_kernels(kernel: tuple[int, int], residual: bool, shape: tuple[int, int, int, int]) -> None:
    compare(tensors(shape, kernel), (1, 1), KERNELS[kernel], (1, 1), residual, NO_ACTIVATION)


@needs_kernel
@pytest.mark.parametrize("upper", [NO_ACTIVATION, RELU, RELU6])
@pytest.mark.parametrize("kernel", [None, (3, 3), (1, 5)])
@pytest.mark.parametrize("with_added", [False, True])
def test_activation_and_addition(upper: float, kernel: tuple[int, int] | None, with_added: bool) -> None:
    inputs = tensors((3, 35, 6, 7), kernel)
    padding = (0, 0) if kernel is None else KERNELS.get(kernel, (0, 2))
    if with_added:
        inputs[4] = torch.randn(3, 35, 6, 7).contiguous(memory_format=torch.channels_last)
    compare(inputs, (1, 1), padding, (1, 1), False, upper)


@needs_kernel
@pytest.mark.parametrize("upper", [RELU, RELU6])
@pytest.mark.parametrize("kernel", [(3, 1), (1, 3), (1, 7)])
@pytest.mark.parametrize("shape", [(2, 16, 19, 5), (3, 21, 4, 4)])
def test_activation_of_a_residual(upper: float, kernel: tuple[int, int], shape: tuple[int, int, int, int]) -> None:
    compare(tensors(shape, kernel), (1, 1), KERNELS[kernel], (1, 1), True, upper)


@needs_kernel
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_geometry(data: st.DataObject) -> None:
    kernel = data.draw(st.sampled_from([(3, 1), (1, 3), (7, 1), (1, 7), (3, 3), (1, 9), (5, 1)]))
    dilation = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = tuple(data.draw(st.integers(0, r)) for r in reach)
    size = [r + 1 - 2 * p + data.draw(st.integers(0, 6)) for r, p in zip(reach, padding, strict=True)]
    shape = (data.draw(st.integers(2, 3)), data.draw(st.integers(16, 36)), max(1, size[0]), max(1, size[1]))
    stride = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    options = Options(stride, padding, dilation, False, data.draw(st.sampled_from([NO_ACTIVATION, RELU])))
    inputs = tensors(shape, kernel, seed=data.draw(st.integers(0, 99)))
    assert supported(inputs[0], inputs[1], options)
    # Where only two values are normalised, the derivative of the norm is the small rest of large numbers.
    compare(inputs, *options, factor=100)


@needs_kernel
@pytest.mark.parametrize("kernel", [None, (3, 1), (1, 7), (3, 3)])
@pytest.mark.parametrize("residual", [False, True])
def test_bfloat16(kernel: tuple[int, int] | None, residual: bool) -> None:
    """Sums are taken in single precision: only what is read and written is rounded."""
    if kernel is None and residual:
        pytest.skip("a residual needs a convolution")
    inputs = tensors((4, 24, 9, 10), kernel, torch.bfloat16)
    padding = (0, 0) if kernel is None else KERNELS[kernel]
    ours = [leaf if leaf is None else leaf.clone().requires_grad_() for leaf in inputs]
    exact = [leaf if leaf is None else leaf.double().requires_grad_() for leaf in inputs]
    y = depthwise_norm(*ours, 1e-5, (1, 1), padding, (1, 1), residual)[0]  # type: ignore[arg-type]
    z = reference(*exact, 1e-5, (1, 1), padding, (1, 1), residual)  # type: ignore[arg-type]
    assert y.dtype == torch.bfloat16
    gradient = torch.randn(z.shape).bfloat16()
    y.backward(gradient)
    z.backward(gradient.double())
    for found, expected in [(y, z), *((a.grad, b.grad) for a, b in zip(ours, exact, strict=True) if a is not None)]:
        assert_close(found.double(), expected, rtol=0.005, atol=0.005 * max(1.0, float(expected.detach().abs().max())))


@needs_kernel
def test_variance_does_not_suffer_from_a_mean_far_from_zero() -> None:
    x = (torch.randn(8, 16, 32, 32) + 1000).contiguous(memory_format=torch.channels_last)
    variance = depthwise_norm(x, None, torch.ones(16), torch.zeros(16))[2]
    assert_close(variance.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-5, atol=0)


@needs_kernel
def test_not_a_number_stays_one() -> None:
    x = torch.ones(2, 16, 4, 4).contiguous(memory_format=torch.channels_last)
    x[0, 3, 1, 2] = float("nan")
    for dtype in (torch.float32, torch.bfloat16):
        y = depthwise_norm(x.to(dtype), None, torch.ones(16), torch.zeros(16))[0]
        assert y[:, 3].isnan().all()
        assert not y[:, :3].isnan().any()


@needs_kernel
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    threads = torch.get_num_threads()
    inputs = tensors((5, 37, 9, 8), (3, 1))
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            leaves = [leaf if leaf is None else leaf.clone().requires_grad_() for leaf in inputs]
            y = depthwise_norm(*leaves, 1e-5, (1, 1), (1, 0), (1, 1), True)[0]  # type: ignore[arg-type]
            y.backward(torch.ones_like(y) * inputs[0])
            results.append([y, *(leaf.grad for leaf in leaves if leaf is not None)])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("residual", [False, True])
def test_whatever_the_kernel_does_not_serve_is_computed_by_torch(residual: bool) -> None:
    """Few channels and double precision, for which derivatives can be checked against differences."""
    x, weight, gamma, beta, _ = (leaf if leaf is None else leaf.double() for leaf in tensors((2, 3, 4, 5), (3, 1)))

    def function(*leaves: Tensor) -> Tensor:
        return depthwise_norm(*leaves, None, 1e-5, (1, 1), (1, 0), (1, 1), residual, RELU)[0]

    leaves = [leaf.requires_grad_() for leaf in (x, weight, gamma, beta) if leaf is not None]
    assert torch.autograd.gradcheck(function, leaves)


def test_addition_is_differentiated_without_the_kernel() -> None:
    inputs = tensors((2, 3, 4, 5), None)
    inputs[4] = torch.randn(2, 3, 4, 5)
    compare(inputs, (1, 1), (0, 0), (1, 1), False, RELU)


@pytest.mark.parametrize("channels", [3, 16])
def test_second_derivatives_are_refused(channels: int) -> None:
    x, weight, gamma, beta, _ = tensors((2, channels, 4, 4), (3, 1))
    x.requires_grad_()
    y = depthwise_norm(x, weight, gamma, beta, None, 1e-5, (1, 1), (1, 0))[0]
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(UserError, match=r"cannot be differentiated twice: .*plain_forms"):
        gradient.sum().backward()


@pytest.mark.parametrize("kernel", [None, (3, 3)])
def test_operator_is_well_formed(kernel: tuple[int, int] | None) -> None:
    """Schema, fake kernel and autograd registration, checked by torch."""
    x, weight, gamma, beta, _ = tensors((2, 16, 6, 5), kernel)
    leaves = [leaf if leaf is None else leaf.requires_grad_() for leaf in (x, weight, gamma, beta)]
    padding = [0, 0] if kernel is None else [1, 1]
    torch.library.opcheck(
        torch.ops.leanconv.depthwise_norm.default,
        (*leaves, None, 1e-5, [1, 1], padding, [1, 1], False, RELU),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def test_operations_are_counted() -> None:
    x, weight, gamma, beta, _ = tensors((2, 16, 8, 6), (3, 1))
    x.requires_grad_()
    weight.requires_grad_()
    with FlopCounterMode(display=False) as counter:
        y = depthwise_norm(x, weight, gamma, beta, None, 1e-5, (1, 1), (1, 0))[0]
        forward = counter.get_total_flops()
        y.sum().backward()
    assert forward == 2 * 3 * x.numel()
    assert counter.get_total_flops() == 3 * forward
