"""One operator in a traced network, with its arguments by name, and the table of rules."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from leanconv.receptive.constants import Constants
from leanconv.receptive.relation import Relation

#: What an operator returns: one relation, or one for each of several outputs.
Outcome: TypeAlias = Relation | list[Relation]


class UnknownReachError(Exception):
    """An operator, or the way it is used, that no rule covers."""


class Call:
    """An operator applied to tensors some of which depend on the source.

    Args:
        node: Of the traced graph.
        relations: Of the nodes that depend on the source.
        constants: Values of the other nodes.

    Attributes:
        arguments: By their names in the operator's schema; tensors that depend on the source are relations, other
            tensors the nodes that make them.
    """

    def __init__(self, node: fx.Node, relations: Mapping[fx.Node, Any], constants: Constants) -> None:
        self.node = node
        self._constants = constants
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            raise UnknownReachError(str(node.target))
        given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
        defaults = {argument.name: argument.default_value for argument in schema.arguments}

        def substitute(value: Any) -> Any:
            if isinstance(value, fx.Node):
                return relations.get(value, value)
            if isinstance(value, list | tuple):
                return [substitute(part) for part in value]
            return value

        self.arguments = {name: substitute(value) for name, value in (defaults | given | dict(node.kwargs)).items()}

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def inputs(self) -> list[Relation]:
        """All tensors among the arguments that depend on the source."""
        found: list[Relation] = []
        for value in self.arguments.values():
            found += [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, Relation)]
        return found

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the outputs."""
        values = self.node.meta["val"]
        values = values if isinstance(values, list | tuple) else [values]
        return [tuple(value.shape) for value in values]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.shapes[0]

    def relation(self, name: str) -> Relation:
        """Return the argument of that name, which must depend on the source."""
        value = self.arguments[name]
        if not isinstance(value, Relation):
            raise UnknownReachError(f"{self.node.target} of a constant `{name}`")
        return value

    def constant(self, value: Any) -> Tensor:
        """Return the value of a tensor that does not depend on the source; parameters are taken to be ones."""
        if isinstance(value, fx.Node):
            value = self._constants[value]
        if not isinstance(value, Tensor):
            raise UnknownReachError(f"{self.node.target} with an index that depends on the image")
        return value

    def weight_mask(self, name: str = "weight") -> Tensor | None:
        """Return where a weight can differ from zero, or None where that is everywhere."""
        return self._constants.mask(self.arguments[name])

    def dim(self, name: str = "dim", rank: int | None = None) -> int:
        """Return an argument that names a dimension, as a number from zero on."""
        size = len(self.inputs[0].shape) if rank is None else rank
        return int(self.arguments[name]) % size

    def per_axis(self, name: str, axes: int) -> list[int]:
        """Return an argument that is a number, or one number an axis."""
        value = self.arguments[name]
        value = [value] if isinstance(value, int) else list(value)
        return value * axes if len(value) == 1 else value


Rule: TypeAlias = Callable[[Call], Outcome]

#: Rules by the name of the operator, whatever its overload.
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Return a decorator that makes a function the rule of the ``aten`` operators with these names."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[f"aten.{name}"] = function
        return function

    return register


def rule_of(node: fx.Node) -> Rule | None:
    """Return the rule for a node, if there is one."""
    target: Any = node.target
    name = str(getattr(target, "overloadpacket", target))
    if name in RULES:
        return RULES[name]
    if torch.Tag.pointwise in getattr(target, "tags", ()):
        return RULES["aten.clone"]
    return None
