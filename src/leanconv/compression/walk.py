"""Find the convolutions of any network, and put others in their places."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import nn

from leanconv.compression.methods import Method
from leanconv.errors import UserError, nearest
from leanconv.ops.structured import Conv, is_plain

Where: TypeAlias = str | Sequence[str] | Callable[[str, nn.Module], bool] | None
"""Which layers: a shell-style pattern of names, several, a test of name and module, or None for all."""

_HOOKS = (
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def convolutions(model: nn.Module) -> dict[str, Conv]:
    """Return every plain convolution by name, shared ones once.

    Transposed convolutions, and subclasses that compute something else, are none.
    """
    return {name: module for name, module in model.named_modules() if is_plain(module)}


def selected(
    model: nn.Module, config: Method | Mapping[str, Method], where: Where
) -> tuple[dict[str, Method], dict[str, str]]:
    """Return the method for each convolution to replace, and why matching ones are left alone.

    Args:
        model: The network.
        config: One method for all, or methods by pattern of names; the first pattern that matches counts.
        where: Which layers.

    Raises:
        UserError: Nothing matches, a pattern matches nothing, or the weight of a matching convolution is computed.
    """
    found = convolutions(model)
    if not found:
        raise UserError("`model` has no convolution (nn.Conv1d, nn.Conv2d or nn.Conv3d) to convert.")
    patterns = (where,) if isinstance(where, str) else where
    rules: Mapping[str, Method] = {"*": config} if isinstance(config, Method) else config
    for name, given in (("where", patterns), ("config", rules)):
        for pattern in given if given is not None and not callable(given) else ():
            if not any(fnmatchcase(layer, pattern) for layer in found):
                raise UserError(f"`{name}` {pattern!r} matches no convolution: {nearest(pattern, found)}")
    chosen: dict[str, Method] = {}
    left: dict[str, str] = {}
    for name, conv in found.items():
        method = next((method for pattern, method in rules.items() if fnmatchcase(name, pattern)), None)
        if method is None or not _matches(patterns, name, conv):
            continue
        if type(conv.weight) is not nn.Parameter or "weight" not in conv._parameters:
            raise UserError(
                f"Convolution {name!r} has a weight that is computed (weight norm or another parametrisation): remove "
                "it first, with torch.nn.utils.parametrize.remove_parametrizations or remove_weight_norm, or leave "
                "the layer out with `where`."
            )
        refusal = method.refusal(conv)
        if refusal is None and patterns is None and conv.groups == conv.in_channels > 1:
            refusal = "it is depthwise"
        if refusal is None:
            chosen[name] = method
        else:
            left[name] = refusal
    if not chosen:
        reason = f" ({next(iter(left))!r} is left alone because {next(iter(left.values()))})" if left else ""
        raise UserError(f"`where` and `config` leave no convolution to convert{reason}.")
    return chosen, left


def _matches(where: Sequence[str] | Callable[[str, nn.Module], bool] | None, name: str, conv: nn.Module) -> bool:
    if where is None:
        return True
    if callable(where):
        return where(name, conv)
    return any(fnmatchcase(name, pattern) for pattern in where)


def replaced(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put ``module`` in the place (or places) of the module called ``name``, with its hooks, and return the network.

    Args:
        model: The network, changed in place unless ``name`` is empty.
        name: Path of the module; empty for the network itself.
        module: What comes in its place; it gets training mode and hooks of the old one.
    """
    old = model.get_submodule(name)
    module.train(old.training)
    for hooks in _HOOKS:
        getattr(module, hooks).update(getattr(old, hooks))
    if old is model:
        return module
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child is old:
                parent._modules[key] = module
    return model
