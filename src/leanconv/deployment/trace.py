"""A network as a graph of calls, in which modules that cannot be read stay whole."""

import collections
import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from leanconv.ops.axial import every
from leanconv.ops.hooks import has_hooks

#: Modules that do nothing in evaluation mode.
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
#: What functions that write into their first argument compute otherwise.
_PLAIN: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    torch.relu_: torch.relu,
    F.relu_: F.relu,
    F.leaky_relu_: F.leaky_relu,
    F.elu_: F.elu,
    F.hardtanh_: F.hardtanh,
}
#: Functions whose result is a tensor of its own, never a view of an argument.
_FRESH = {operator.add, torch.add, operator.sub, operator.mul, operator.truediv, torch.cat, F.relu, torch.relu, F.pad}
#: Layers of torch that pass on a view, or themselves.
_VIEWS = (nn.Flatten, nn.Unflatten, nn.ChannelShuffle, *_IDLE)


class Unreadable(Exception):  # noqa: N818 - not an error: the network is folded part by part instead
    """A network's forward pass is no graph of calls; the message is a clause that says why."""


def traced(model: nn.Module) -> tuple[fx.GraphModule, dict[str, str]]:
    """Return a network as a graph, without what is idle in evaluation mode, and without in-place operations.

    Args:
        model: A network in evaluation mode; the graph shares its modules, of which ``inplace`` is switched off.

    Returns:
        The graph, and the modules that could not be read and why.

    Raises:
        Unreadable: The network's own forward pass cannot be.
    """
    tracer = _Tracer()
    fixed = {
        name: parameter.default
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    try:
        graph = tracer.trace(model, fixed or None)
    except Exception as error:
        raise Unreadable(_first_sentence(error)) from error
    network = fx.GraphModule(model, graph)
    for node in list(graph.nodes):
        if _is_idle(network, node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in list(graph.nodes):
        _write_elsewhere(network, node)
    graph.lint()
    network.recompile()
    return network, tracer.opaque


class _Proxy(fx.Proxy):
    """A stand-in that notes ``x += y`` as it acts: every other name of the tensor sees it."""

    def _in_place(self, function: Callable[..., Any], other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)


class _Tracer(fx.Tracer):
    """Reads into every module, and keeps those whole that have hooks or that a stand-in cannot pass through."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(every,))
        self.opaque: dict[str, str] = {}

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if has_hooks(m):
            self.opaque[module_qualified_name] = "it has hooks"
            return True
        return bool(super().is_leaf_module(m, module_qualified_name))

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        before = next(reversed(self.graph.nodes), None)
        stack = collections.OrderedDict(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:
            for node in reversed(list(self.graph.nodes)):
                if node is before:
                    break
                self.graph.erase_node(node)
            self.module_stack = stack
            path = self.path_of_module(m)
            self.opaque[path] = f"its forward pass cannot be read ({_first_sentence(error)})"
            return self.create_proxy("call_module", path, args, kwargs)


def _first_sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".") or type(error).__name__


def _is_idle(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_function":
        if node.target is every:
            return node.args[1:2] == (1,)
        training = node.args[2] if len(node.args) > 2 else node.kwargs.get("training", True)
        return node.target in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d) and training is False
    if node.op != "call_module" or len(node.args) != 1:
        return False
    module = network.get_submodule(str(node.target))
    return type(module) in _IDLE and not has_hooks(module)


def _write_elsewhere(network: fx.GraphModule, node: fx.Node) -> None:
    """Let an in-place operation write a tensor of its own, and later readers of the old one read it.

    Raises:
        Unreadable: Views of the tensor would have seen the change.
    """
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    method = node.target if node.op == "call_method" and isinstance(node.target, str) else ""
    in_place = (
        getattr(module, "inplace", False) is True
        or node.kwargs.get("inplace") is True
        or (node.op == "call_function" and (node.target in _PLAIN or node.target is operator.setitem))
        or (method.endswith("_") and not method.endswith("__"))
    )
    if not in_place:
        return
    written = node.args[0] if node.args else None
    order = {other: index for index, other in enumerate(network.graph.nodes)}
    if not isinstance(written, fx.Node) or node.target is operator.setitem or not _is_fresh(network, written):
        raise Unreadable(f"{node.name!r} writes into a tensor in place")
    earlier = [user for user in written.users if order[user] < order[node]]
    if any(user.op != "output" and not _is_fresh(network, user) for user in earlier):
        raise Unreadable(f"{node.name!r} writes in place into a tensor that others may view")
    written.replace_all_uses_with(node, delete_user_cb=lambda user: order[user] > order[node])
    if getattr(module, "inplace", False):
        module.inplace = False  # type: ignore[union-attr]
    if "inplace" in node.kwargs:
        node.kwargs = {**node.kwargs, "inplace": False}
    if node.op == "call_function":
        node.target = _PLAIN.get(node.target, node.target)  # type: ignore[arg-type]
    if method:
        node.target = method.removesuffix("_")


def _is_fresh(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether what a node returns shares no memory with what it reads."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return type(module).__module__.startswith("torch.nn.") and not isinstance(module, _VIEWS)
    return node.op == "placeholder" or node.target in _FRESH
