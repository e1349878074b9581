"""One forward pass, watched: on tensors without data where possible, else on the real ones."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import register_module_forward_pre_hook

from leanconv.errors import UserError
from leanconv.measurement.attribution import Attribution
from leanconv.measurement.placement import evaluating

T = TypeVar("T")

# What a network raises when its input does not fit it; anything else is a defect of the network.
_MISFITS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError)

_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


def observe(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    watch: Callable[[nn.Module, tuple[Tensor, ...]], AbstractContextManager[T]],
) -> T:
    """Run a network once under ``watch`` and return what that context gave.

    The pass is made with a copy of the network on the meta device, which has shapes and strides but no data: it
    takes milliseconds whatever the network costs, and attention and recurrent layers appear as the products they
    consist of instead of one opaque operator.  Networks that cannot run there (control flow that depends on data,
    operators without a meta kernel) are run as they are, in evaluation mode, and put back.

    Args:
        model: The network; a compiled one is observed as it was before compilation.
        inputs: Positional arguments of the pass.
        watch: Given the network that is run and its inputs, returns the context to run it in.

    Raises:
        UserError: The input does not fit the network.
    """
    model = uncompiled(model)
    # Under inference mode composite operators would not be split into those that have costs.
    with torch.inference_mode(False), torch.no_grad():
        # Whatever the reason a pass without data fails for, the real one works or says what is wrong.
        with suppress(Exception):
            return _observe_on_meta(model, inputs, watch)
        with evaluating(model), _unfused(), _batched(inputs), watch(model, inputs) as result:
            run(model, inputs)
        return result


def _observe_on_meta(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    watch: Callable[[nn.Module, tuple[Tensor, ...]], AbstractContextManager[T]],
) -> T:
    model = without_data(model).eval()
    inputs = tuple(tensor.detach().to("meta") for tensor in inputs)
    with torch.device("meta"), _batched(inputs), watch(model, inputs) as result:
        model(*inputs)
    return result


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the network inside one that ``torch.compile`` returned; any other as it is."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def without_data(model: nn.Module) -> nn.Module:
    """Return a copy of a network whose tensors are on the meta device; tensors are never duplicated."""
    replaced: dict[int, Any] = {}
    for module in model.modules():
        for tensor in [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]:
            if isinstance(tensor, nn.Parameter):
                replaced[id(tensor)] = nn.Parameter(tensor.detach().to("meta"), requires_grad=False)
            elif isinstance(tensor, Tensor):
                replaced[id(tensor)] = tensor.detach().to("meta")
    return copy.deepcopy(model, replaced)


@contextmanager
def _batched(inputs: tuple[Tensor, ...]) -> Iterator[None]:
    """Refuse an input without a batch axis, which convolutions alone would take."""

    def check(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, _ConvNd) and args and isinstance(args[0], Tensor):
            shape = tuple(args[0].shape)
            if shape == tuple(inputs[0].shape) and len(shape) == len(module.kernel_size) + 1:
                raise UserError(
                    f"`input_size` {shape} has no batch axis: {(1, *shape)} would be a batch of one such input."
                )

    hook = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _unfused() -> Iterator[None]:
    """Keep attention in operators whose multiplications can be counted."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def run(model: Callable[..., Any], inputs: tuple[Tensor, ...], argument: str = "input_size") -> Any:
    """Call a network, with one sentence that says where and why if the input does not fit it.

    Args:
        model: The network.
        inputs: Its positional arguments.
        argument: What the caller's argument that says the size is called.

    Raises:
        UserError: The network raised what misfitting inputs make it raise.
    """
    try:
        return model(*inputs)
    except (UserError, torch.OutOfMemoryError):
        raise
    except _MISFITS as error:
        raise UserError(_misfit(model, inputs, error, argument)) from error


def _misfit(model: Callable[..., Any], inputs: tuple[Tensor, ...], error: Exception, argument: str) -> str:
    sizes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
    sentence = f"`{argument}` {sizes} does not fit the network"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if not isinstance(model, nn.Module):
        return f"{sentence}: {reason}."
    modules = dict(model.named_modules())
    with Attribution(model) as attribution, suppress(*_MISFITS):
        model(*inputs)
    failed = attribution.running[-1] if attribution.running else None
    first = next((name for name in [*attribution.spent, *modules] if expected_input(modules[name])), None)
    expects = "" if first is None else f"{_label(first, modules)} expects {expected_input(modules[first])}"
    if failed is not None and failed == first:
        return f"{sentence}: its first layer {expects} ({reason})."
    place = f" in layer {_label(failed, modules)}" if failed else ""
    hint = f"; its first layer {expects}" if expects else ""
    return f"{sentence}: {reason}{place}{hint}."


def _label(name: str, modules: dict[str, nn.Module]) -> str:
    kind = type(modules[name]).__name__
    return f"{name!r} ({kind})" if name else kind


def expected_input(layer: nn.Module) -> str:
    """Return the input shape a convolution or linear layer asks for, or an empty string for other modules."""
    channels = getattr(layer, "in_channels", None)
    kernel = getattr(layer, "kernel_size", None)
    if isinstance(channels, int) and isinstance(kernel, tuple) and 1 <= len(kernel) <= 3:
        return f"(N, {channels}, {_AXES[len(kernel)]})"
    if isinstance(layer, nn.Linear):
        return f"(N, …, {layer.in_features})"
    return ""
