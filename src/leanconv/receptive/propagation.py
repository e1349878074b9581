"""Following relations through a traced network."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, fx

from leanconv.receptive import mixing, movement  # noqa: F401 - their rules register themselves
from leanconv.receptive.call import Call, Outcome, UnknownReachError, rule_of
from leanconv.receptive.constants import Constants
from leanconv.receptive.mixing import everything
from leanconv.receptive.relation import Relation, View
from leanconv.receptive.tracing import shape_of

#: Called with every node that depends on the source, and its relation.
Observer = Callable[[fx.Node, Relation], None]


def propagate(
    source: fx.Node,
    nodes: Sequence[fx.Node],
    constants: Constants,
    view: View,
    observe: Observer,
    unknown: set[str] | None = None,
) -> None:
    """Follow what depends on a node, through the nodes after it.

    Args:
        source: Makes a tensor ``(N, C, *spatial)``.
        nodes: Operators in order, from behind the source on.
        constants: Tensors that do not depend on the image.
        view: Projection of the source.
        observe: Called at every node that makes one tensor.
        unknown: Takes the names of operators without a rule, which are taken to see everything.
    """
    relations: dict[fx.Node, Any] = {source: Relation.of_source(shape_of(source), view)}
    inside = set(nodes)
    remaining = {node: sum(user in inside for user in node.users) for node in (source, *nodes)}
    observe(source, relations[source])
    for node in nodes:
        inputs = [parent for parent in node.all_input_nodes if relations.get(parent) is not None]
        if not inputs or not isinstance(node.meta.get("val"), Tensor | list | tuple):
            continue
        relations[node] = found = _apply(node, relations, constants, unknown)
        if isinstance(found, Relation):
            observe(node, found)
        for parent in inputs:
            remaining[parent] -= 1
            if not remaining[parent]:
                relations[parent] = None


def _apply(
    node: fx.Node, relations: dict[fx.Node, Any], constants: Constants, unknown: set[str] | None
) -> Outcome | None:
    if node.target is operator.getitem:
        outcomes: Any = relations[node.all_input_nodes[0]]
        position: Any = node.args[1]
        found: Relation = outcomes[position] if isinstance(outcomes, list) else outcomes
        return found
    try:
        known = rule_of(node)
        if known is None:
            raise UnknownReachError
        return known(Call(node, relations, constants))
    except UnknownReachError:
        if unknown is not None:
            unknown.add(str(node.target))
        return everything(Call(node, relations, constants))
