"""Depthwise convolution, batch norm, residual and activation as one operator of torch, for training.

``torch.ops.leanconv.depthwise_norm`` computes ``activation(norm(conv(x)) + x + added)`` with the statistics of the
batch, where the convolution, either sum and the activation may be missing.  Taken one by one these are six passes that
read and write the whole tensor, and many more backward.  The compiled kernel has two passes each way: forward one that
sums up for the statistics and one that writes the result, backward one that sums up and one that writes the gradient.
Each computes the convolution again rather than keep it, so that nothing but the input is kept for the backward pass.

The operator is right on every device and for every dtype: where the kernel does not serve it is computed by torch's
own operators, which :mod:`leanconv.ops.kernels.apply` then prefers to call directly.

Cost: for ``k`` taps on an output of ``n`` elements ``k n`` MACs forward and ``2 k n`` backward; those computed again
are not counted.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from leanconv.errors import UserError
from leanconv.ops.kernels.library import DTYPES, LANES, TAPS, Problem, call, library

#: Activations by their upper bound: the result is clamped to 0 … upper, unless it is 0.
NO_ACTIVATION, RELU, RELU6 = 0.0, float("inf"), 6.0

_OPTIONS = "int[] stride, int[] padding, int[] dilation, bool residual, float upper"
torch.library.define(
    "leanconv::depthwise_norm",
    f"(Tensor x, Tensor? weight, Tensor gamma, Tensor beta, Tensor? added, float eps, {_OPTIONS})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "leanconv::depthwise_norm_backward",
    "(Tensor dy, Tensor x, Tensor? y, Tensor? weight, Tensor gamma, Tensor beta, Tensor mean, Tensor inverse,"
    f" {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


class Options(NamedTuple):
    """What both operators take after their tensors."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    residual: bool
    upper: float

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Options":
        """Return the last of an operator's arguments, in a form that can be a key."""
        stride, padding, dilation, residual, upper = values[-5:]
        return cls(tuple(stride), tuple(padding), tuple(dilation), residual, upper)


def depthwise_norm(
    x: Tensor,
    weight: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    added: Tensor | None = None,
    eps: float = 1e-5,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    residual: bool = False,
    upper: float = NO_ACTIVATION,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``activation(gamma * (conv(x) - mean) / sqrt(variance + eps) + beta + x + added)``, and its statistics.

    Args:
        x: Images, ``(N, C, H, W)``.
        weight: Of a depthwise convolution, ``(C, 1, k_h, k_w)``; None for none.
        gamma: Weights of the norm, ``(C,)``.
        beta: Its biases, ``(C,)``.
        added: Of the result's shape; not together with ``residual``.
        eps: As in ``torch.nn.BatchNorm2d``.
        stride: Of the convolution.
        padding: Zeros added on both sides.
        dilation: Of the convolution.
        residual: Whether ``x`` is added; needs a convolution of stride 1 with odd kernel, padded to keep the size.
        upper: Activation: :data:`NO_ACTIVATION`, :data:`RELU` or :data:`RELU6`.

    Returns:
        The result, ``(N, C, H', W')`` with channels last in memory, and mean, variance (of the batch, not corrected)
        and ``1 / sqrt(variance + eps)`` of the convolution's output, each ``(C,)``.

    Raises:
        UserError: The result is differentiated twice.
    """
    # Torch's way to an operator written in Python takes longer than small layers: it is for those who look on.
    looked_on = torch._C._len_torch_dispatch_stack() or torch._C._functorch.maybe_current_level() is not None
    operator: Any = torch.ops.leanconv.depthwise_norm if looked_on or type(x) is not Tensor else _Eager.apply
    results = operator(x, weight, gamma, beta, added, eps, stride, padding, dilation, residual, upper)
    return cast("tuple[Tensor, Tensor, Tensor, Tensor]", results)


def supported(x: Tensor, weight: Tensor | None, options: Options) -> bool:
    """Whether the kernel computes this, if it can be built."""
    shape = None if weight is None else weight.shape
    return x.is_cpu and _problem(x.shape, x.dtype, shape, options, torch.get_num_threads()) is not None


@functools.lru_cache(maxsize=4096)
def _problem(
    x: torch.Size, dtype: torch.dtype, weight: torch.Size | None, options: Options, threads: int
) -> Problem | None:
    """Describe the problem for the kernel; None where that does not serve it."""
    images, channels, height, width = x
    if dtype not in DTYPES or channels < LANES or x.numel() == 0:
        return None
    taps_high, taps_wide = (1, 1) if weight is None else weight[2:]
    reach = (options.dilation[0] * (taps_high - 1), options.dilation[1] * (taps_wide - 1))
    taps, size = 0 if weight is None else taps_high * taps_wide, _out_size(x, weight, options)
    if taps not in TAPS or min(size) < 1 or any(not 0 <= p <= r for p, r in zip(options.padding, reach, strict=True)):
        return None
    centred = options.stride == (1, 1) and taps_high * taps_wide % 2 and size == list(x[2:])
    along_an_axis = 1 in (taps_high, taps_wide) and options.dilation == (1, 1)
    if options.residual and not (taps and centred and (options.upper == NO_ACTIVATION or along_an_axis)):
        return None
    geometry = (*options.stride, *options.padding, *options.dilation)
    sizes = (images, height, width, channels, *size, taps_high, taps_wide, *geometry)
    return Problem(*sizes, taps, options.residual, threads, options.upper)


def _out_size(x: Sequence[int], weight: Sequence[int] | None, options: Options) -> list[int]:
    if weight is None:
        return list(x[2:])
    return [
        (size + 2 * pad - step * (taps - 1) - 1) // stride + 1
        for size, taps, stride, pad, step in zip(
            x[2:], weight[2:], options.stride, options.padding, options.dilation, strict=True
        )
    ]


def _served(x: Tensor, weight: Tensor | None, gamma: Tensor, options: Options) -> Problem | None:
    """Return the problem where there is a kernel for it."""
    if not (x.is_cpu and gamma.dtype == torch.float32 and (weight is None or weight.dtype == torch.float32)):
        return None
    shape = None if weight is None else weight.shape
    problem = _problem(x.shape, x.dtype, shape, options, torch.get_num_threads())
    return problem if problem is not None and library() is not None else None


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _taps(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.reshape(weight.shape[0], -1).contiguous()


@torch.library.impl("leanconv::depthwise_norm", "CompositeExplicitAutograd")
def _forward(
    x: Tensor, weight: Tensor | None, gamma: Tensor, beta: Tensor, added: Tensor | None, eps: float, *options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _compute(x, weight, gamma, beta, added, eps, Options.of(options))


def _compute(
    x: Tensor, weight: Tensor | None, gamma: Tensor, beta: Tensor, added: Tensor | None, eps: float, options: Options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    problem = _served(x, weight, gamma, options)
    if problem is None:
        return _plain(x, weight, gamma, beta, added, eps, options)
    y = _empty(x, (problem.out_height, problem.out_width))
    mean, variance, inverse = torch.empty_like(gamma), torch.empty_like(gamma), torch.empty_like(gamma)
    added = None if added is None else _last(added)
    inputs = (_last(x), _taps(weight), gamma.contiguous(), beta.contiguous(), added)
    call("forward", x.dtype, problem, *inputs, eps, y, mean, variance, inverse)
    return y, mean, variance, inverse


def _empty(x: Tensor, size: Sequence[int]) -> Tensor:
    shape = (*x.shape[:2], *size)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _plain(
    x: Tensor, weight: Tensor | None, gamma: Tensor, beta: Tensor, added: Tensor | None, eps: float, options: Options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the same by torch's own operators."""
    value = _accurate(x) if weight is None else _convolved(_accurate(x), _accurate(weight), options)
    variance, mean = torch.var_mean(value, (0, 2, 3), correction=0)
    inverse = torch.rsqrt(variance + eps)
    y = (value - _spread(mean)) * _spread(inverse * gamma) + _spread(beta)
    y = y + x if options.residual else y
    y = y if added is None else y + added
    y = y if options.upper == NO_ACTIVATION else F.relu(y) if options.upper == RELU else y.clamp(0, options.upper)
    return _last(y.to(x.dtype)), mean, variance, inverse


def _accurate(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _convolved(x: Tensor, weight: Tensor, options: Options) -> Tensor:
    return F.conv2d(x, weight, None, options.stride, options.padding, options.dilation, groups=x.shape[1])


def _spread(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _fake(x: Tensor, weight: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    size = x.shape[2:] if weight is None else _out_size(x.shape, weight.shape, Options.of(rest))
    accurate = torch.promote_types(x.dtype, torch.float32)
    mean, variance, inverse = (torch.empty(x.shape[1], dtype=accurate, device=x.device) for _ in range(3))
    return _empty(x, size), mean, variance, inverse


@torch.library.impl("leanconv::depthwise_norm_backward", "CompositeExplicitAutograd")
def _backward(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    inverse: Tensor,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _gradients(dy, x, y, weight, gamma, beta, mean, inverse, Options.of(options))


def _gradients(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    inverse: Tensor,
    options: Options,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    problem = _served(x, weight, gamma, options)
    if problem is None:
        return _plain_backward(dy, x, y, weight, gamma, beta, mean, inverse, options)
    x, taps = _last(x), _taps(weight)
    dx, dgamma, dbeta = torch.empty_like(x), torch.empty_like(gamma), torch.empty_like(gamma)
    dtaps = None if taps is None else torch.empty_like(taps)
    dadded = None if y is None else torch.empty_like(y)
    inputs = (x, y, _last(dy), taps, gamma.contiguous(), beta.contiguous(), mean, inverse)
    call("backward", x.dtype, problem, *inputs, dx, dadded, dtaps, dgamma, dbeta)
    nothing = x.new_empty(0)
    return dx, nothing if dadded is None else dadded, nothing if dtaps is None else dtaps, dgamma, dbeta


def _plain_backward(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    inverse: Tensor,
    options: Options,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the same by torch's own operators."""
    wide, taps, gradient = _accurate(x), None if weight is None else _accurate(weight), _accurate(dy)
    value = wide if taps is None else _convolved(wide, taps, options)
    normal = (value - _spread(mean)) * _spread(inverse)
    if options.upper != NO_ACTIVATION:
        out = y if y is not None else normal * _spread(gamma) + _spread(beta) + (wide if options.residual else 0)
        gradient = gradient * ((out > 0) & (out < options.upper))
    count = value.numel() / value.shape[1]
    dbeta, dgamma = gradient.sum((0, 2, 3)), (gradient * normal).sum((0, 2, 3))
    dvalue = _spread(gamma * inverse) * (gradient - _spread(dbeta / count) - normal * _spread(dgamma / count))
    dx, dweight = dvalue, x.new_empty(0)
    if taps is not None:
        geometry = (options.stride, options.padding, options.dilation, False, [0, 0], x.shape[1])
        wanted = [True, True, False]
        dx, dtaps, _ = torch.ops.aten.convolution_backward(dvalue, wide, taps, None, *geometry, wanted)
        dweight = dtaps.flatten(1).to(gamma.dtype)
    dx = dx + gradient if options.residual else dx
    dadded = x.new_empty(0) if y is None else _last(gradient.to(x.dtype))
    return _last(dx.to(x.dtype)), dadded, dweight, dgamma.to(gamma.dtype), dbeta.to(beta.dtype)


def _fake_backward(
    dy: Tensor, x: Tensor, y: Tensor | None, weight: Tensor | None, gamma: Tensor, beta: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    nothing = x.new_empty(0)
    dadded = nothing if y is None else _empty(dy, dy.shape[2:])
    dweight = nothing if weight is None else weight.new_empty(weight.shape[0], weight.shape[2:].numel())
    return _empty(x, x.shape[2:]), dadded, dweight, torch.empty_like(gamma), torch.empty_like(beta)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, gamma, beta, added, _, *options = inputs
    y, mean, _, inverse = output
    ctx.options, ctx.added, ctx.direct = Options.of(options), added is not None, False
    clamped = ctx.options.upper != NO_ACTIVATION
    # What was clamped follows from the convolution, which is computed again; with `added` the result says it cheaper.
    ctx.save_for_backward(x, y if ctx.added and clamped else None, weight, gamma, beta, mean, inverse)


def _differentiate(ctx: Any, dy: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 11
    x, y, weight, gamma, beta, mean, inverse = ctx.saved_tensors
    direct = ctx.direct and not torch.is_grad_enabled()  # which it is where second derivatives are asked for
    function = _gradients if direct else torch.ops.leanconv.depthwise_norm_backward
    options = (ctx.options,) if direct else ctx.options
    dx, dadded, dweight, dgamma, dbeta = function(dy, x, y, weight, gamma, beta, mean, inverse, *options)
    dadded = None if not ctx.added else dy if y is None else dadded
    return dx, None if weight is None else dweight.view(weight.shape), dgamma, dbeta, dadded, *[None] * 6


class _Eager(torch.autograd.Function):
    """The operator without torch's dispatcher."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        x, weight, gamma, beta, added, eps, *options = inputs
        output = _compute(x, weight, gamma, beta, added, eps, Options.of(options))
        _keep(ctx, inputs, output)
        ctx.direct = True
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        return output

    backward = staticmethod(_differentiate)


def _refuse(*_: Any) -> None:
    raise UserError(
        "a fused batch norm cannot be differentiated twice: compute the forward pass within "
        "`leanconv.ops.kernels.plain_forms()`, which gives the same result by operators that can."
    )


torch.library.register_fake("leanconv::depthwise_norm", _fake)
torch.library.register_fake("leanconv::depthwise_norm_backward", _fake_backward)
torch.library.register_autograd("leanconv::depthwise_norm", _differentiate, setup_context=_keep)
torch.library.register_autograd("leanconv::depthwise_norm_backward", _refuse)


@register_flop_formula(torch.ops.leanconv.depthwise_norm)
def _flops(_: torch.Size, weight: torch.Size | None, *__: Any, out_shape: Sequence[torch.Size], **___: Any) -> int:
    return 0 if weight is None else 2 * out_shape[0].numel() * weight[2:].numel()


@register_flop_formula(torch.ops.leanconv.depthwise_norm_backward)
def _flops_backward(dy: torch.Size, *tensors: Any, **_: Any) -> int:
    weight = tensors[2]
    return 0 if weight is None else 4 * dy.numel() * weight[2:].numel()
