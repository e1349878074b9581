"""The tensors of a traced network that do not depend on its input."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind


class Constants:
    """Values of parameters, buffers and what is computed from them, made when asked for.

    Parameters are taken to be ones: what a network can see does not depend on what it has learned.  Zeros that a
    network puts beside its parameters, and zeros in its buffers, are there for good.

    Args:
        program: The traced network.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._parameters: set[str] = set()
        self._stored: dict[str, str] = {}
        self._program = program
        for spec in program.graph_signature.input_specs:
            name = getattr(spec.arg, "name", None)
            if spec.kind == InputKind.PARAMETER and name:
                self._parameters.add(name)
            if spec.target and name:
                self._stored[name] = spec.target
        self._values: dict[fx.Node, Any] = {}

    def __getitem__(self, node: fx.Node) -> Any:
        """Return the value of a node that does not depend on the input, or None where there is none to be had."""
        if node not in self._values:
            self._values[node] = self._evaluate(node)
        return self._values[node]

    def _evaluate(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            if node.name in self._parameters:
                return torch.ones(tuple(node.meta["val"].shape))
            target = self._stored.get(node.name)
            value = {**self._program.constants, **self._program.state_dict}.get(target) if target else None
            return value.detach().cpu() if isinstance(value, Tensor) and not value.is_meta else None
        if node.op != "call_function" or not callable(node.target):
            return None
        missing = [source for source in node.all_input_nodes if self[source] is None]
        if missing:
            return None
        arguments = fx.node.map_arg(node.args, self.__getitem__)
        options = {k: v for k, v in fx.node.map_arg(node.kwargs, self.__getitem__).items() if k != "device"}
        return node.target(*arguments, **options)

    def mask(self, value: Any) -> Tensor | None:
        """Return where a weight can differ from zero, or None where that is everywhere or unknown."""
        if not isinstance(value, fx.Node) or value.name in self._parameters:
            return None
        tensor = self[value]
        if not isinstance(tensor, Tensor) or bool(tensor.all()):
            return None
        return tensor != 0
