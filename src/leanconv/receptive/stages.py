"""The stages of a network: what it does at one resolution, and the tensor that enters there."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import fx

from leanconv.receptive import movement
from leanconv.receptive.call import rule_of
from leanconv.receptive.tracing import Trace, shape_of


@dataclass(frozen=True)
class StageNodes:
    """A stage of a traced network.

    Attributes:
        resolution: Spatial lengths of its tensors.
        source: The tensor through which everything enters it.
        nodes: Its operators in order.
    """

    resolution: tuple[int, ...]
    source: fx.Node
    nodes: tuple[fx.Node, ...]


def stages_of(trace: Trace) -> list[StageNodes]:
    """Divide a network into its resolutions.

    Operators belong together where tensors of one resolution flow from one to the other.  What they depend on enters
    through the last tensor that all their inputs from elsewhere come by; where branches enter (a shortcut beside a
    strided convolution) that is where they part.
    """
    groups = _Groups()
    above = _Dominators(trace.source)
    resolutions: dict[fx.Node, tuple[int, ...] | None] = {trace.source: shape_of(trace.source)[2:]}
    for node in trace.nodes:
        parents = [parent for parent in node.all_input_nodes if parent in resolutions]
        if not parents:
            continue
        above.add(node, parents)
        resolutions[node] = resolution = _resolution(node, trace.axes, [resolutions[parent] for parent in parents])
        for parent in parents:
            if resolution is not None and resolution == resolutions[parent]:
                groups.join(parent, node)
    members: dict[fx.Node, list[fx.Node]] = {}
    for node, resolution in resolutions.items():
        if resolution is not None:
            members.setdefault(groups.head(node), []).append(node)
    stages = []
    for nodes in members.values():
        inside = set(nodes)
        entering = [p for node in nodes for p in node.all_input_nodes if p in resolutions and p not in inside]
        source = trace.source if trace.source in inside else above.common(entering)
        while len(shape_of(source)) != trace.axes + 2:
            source = above.parent(source)
        own = tuple(node for node in nodes if node is not trace.source)
        stages.append(StageNodes(resolutions[nodes[0]] or (), source, own))
    return stages


def _resolution(node: fx.Node, axes: int, before: list[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    """Return the spatial lengths of a node's tensor, those of its input where it is only viewed otherwise."""
    shape = shape_of(node)
    if len(shape) >= axes + 2:
        return shape[-axes:]
    known = rule_of(node)
    return before[0] if known is not None and known.__module__ == movement.__name__ else None


class _Groups:
    """Sets of nodes that grow together (union and find)."""

    def __init__(self) -> None:
        self._parents: dict[fx.Node, fx.Node] = {}

    def head(self, node: fx.Node) -> fx.Node:
        while node in self._parents:
            node = self._parents[node]
        return node

    def join(self, first: fx.Node, second: fx.Node) -> None:
        first, second = self.head(first), self.head(second)
        if first is not second:
            self._parents[second] = first


class _Dominators:
    """For each node the last one before it that every path from the source takes."""

    def __init__(self, source: fx.Node) -> None:
        self._parents: dict[fx.Node, fx.Node] = {}
        self._depths = {source: 0}

    def add(self, node: fx.Node, inputs: Iterable[fx.Node]) -> None:
        parent = self.common(inputs)
        self._parents[node] = parent
        self._depths[node] = self._depths[parent] + 1

    def parent(self, node: fx.Node) -> fx.Node:
        return self._parents[node]

    def common(self, nodes: Iterable[fx.Node]) -> fx.Node:
        first, *others = nodes
        for other in others:
            while first is not other:
                if self._depths[first] >= self._depths[other]:
                    first = self._parents[first]
                else:
                    other = self._parents[other]
        return first
