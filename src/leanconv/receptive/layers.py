"""The layers of a traced network: which nodes they end at."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor, fx

from leanconv.receptive import movement
from leanconv.receptive.call import rule_of
from leanconv.receptive.tracing import Trace, layer_of


@dataclass(frozen=True)
class LayerCall:
    """One call of a module, or of an operator outside any module.

    Attributes:
        name: Path of the module in the network, or the operator's own name.
        kind: Class of the module, or the operator.
        node: The node that makes its output.
        is_leaf: Whether no module inside it has a call of its own.
        combines: Whether it combines elements, rather than only move them.
    """

    name: str
    kind: str
    node: fx.Node
    is_leaf: bool
    combines: bool


class _Effect(IntEnum):
    """What operators do with elements."""

    NONE = 0
    MOVE = 1
    COMBINE = 2


@dataclass
class _Open:
    """A call of a module that has not ended yet."""

    name: str
    kind: str
    node: fx.Node
    effect: _Effect = _Effect.NONE
    is_leaf: bool = True


def layer_calls(trace: Trace) -> list[LayerCall]:
    """Return every call of a module that combines or moves elements, outer ones after what they contain.

    Layers that treat each element for itself (activations, batch norm in evaluation) see what the layer before them
    sees and are left out.
    """
    return list(_calls([node for node in trace.nodes if isinstance(node.meta.get("val"), Tensor)]))


def _calls(nodes: list[fx.Node]) -> Iterator[LayerCall]:
    running: list[_Open] = []
    for node in nodes:
        stack = layer_of(node)
        shared = 0
        while shared < min(len(stack), len(running)) and stack[shared] == (running[shared].name, running[shared].kind):
            shared += 1
        yield from _ended(running, shared)
        running += [_Open(name, kind, node) for name, kind in stack[shared:]]
        effect = _effect(node)
        for call in running:
            call.node, call.effect = node, max(call.effect, effect)
        if not stack and effect:
            yield LayerCall(node.name, _operator(node), node, True, effect is _Effect.COMBINE)
    yield from _ended(running, 0)


def _ended(running: list[_Open], kept: int) -> Iterator[LayerCall]:
    """Take calls off the list of those running, innermost first, until so many are left."""
    while len(running) > kept:
        call = running.pop()
        if call.effect:
            yield LayerCall(call.name, call.kind, call.node, call.is_leaf, call.effect is _Effect.COMBINE)
            for outer in running:
                outer.is_leaf = False


def _effect(node: fx.Node) -> _Effect:
    if node.target is operator.getitem:
        return _effect(node.all_input_nodes[0])
    known = rule_of(node)
    if known is movement.elementwise:
        return _Effect.NONE
    return _Effect.MOVE if known is not None and known.__module__ == movement.__name__ else _Effect.COMBINE


def _operator(node: fx.Node) -> str:
    if node.target is operator.getitem:
        return _operator(node.all_input_nodes[0])
    return str(getattr(node.target, "overloadpacket", node.target)).removeprefix("aten.")
