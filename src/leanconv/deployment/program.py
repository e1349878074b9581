"""From a module to an exported program: the one graph that every target is made from."""

import contextlib
import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Interpreter, Node
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from leanconv.deployment.pooling import round_down
from leanconv.errors import UserError

#: Rows of the batch that programs are traced with: with a single row the batch size would become a constant.
_TRACED_BATCH = 2
_TORCH = Path(torch.__file__).parent


def export_program(model: nn.Module, inputs: tuple[Tensor, ...], *, dynamic_batch: bool = True) -> ExportedProgram:
    """Trace a network with ``torch.export``.

    Args:
        model: The network, in evaluation mode.
        inputs: Its positional arguments, each with the batch first.
        dynamic_batch: Whether the program takes any batch size instead of that of ``inputs``.

    Raises:
        UserError: The control flow depends on the data, or the batch size is a constant in the code.
    """
    shapes: tuple[Any, ...] | None = None
    if dynamic_batch:
        inputs = tuple(with_rows(tensor, _TRACED_BATCH) for tensor in inputs)
        shapes = tuple({0: Dim("batch", min=1)} for _ in inputs)
    try:
        # Beside logging, torch.export prints the graph as far as it got.
        with torch.no_grad(), quiet(), contextlib.redirect_stderr(io.StringIO()):
            return round_down(torch.export.export(model, inputs, dynamic_shapes=_by_signature(model, shapes)))
    except GuardOnDataDependentSymNode as error:
        raise UserError(
            f"The model cannot be exported because its control flow depends on the data{_place(error)}: "
            "torch.where or torch.cond express both branches."
        ) from error
    except Exception as error:
        raise UserError(_why_not(error)) from error


def _by_signature(model: nn.Module, shapes: tuple[Any, ...] | None) -> Any:
    """Return the shapes in the form that ``forward(*tensors)`` needs: one more tuple around those of its arguments."""
    code = getattr(type(model).forward, "__code__", None)
    takes_any = code is not None and bool(code.co_flags & 0x04) and code.co_argcount == 1
    return (shapes,) if takes_any and shapes is not None else shapes


def with_rows(tensor: Tensor, rows: int) -> Tensor:
    """Return a batch of ``rows`` rows: the first ones, repeated where there are too few."""
    return tensor[torch.arange(rows, device=tensor.device) % tensor.shape[0]]


def _why_not(error: Exception) -> str:
    text = " ".join(str(error).split())
    constant = re.search(r"marked batch as dynamic but your code specialized it to be a constant", text)
    if constant:
        return (
            "The model cannot be exported for any batch size because its code makes the batch size a constant: "
            "write -1 or x.shape[0] in its place, or pass dynamic_batch=False."
        )
    return f"The model cannot be exported by torch.export{_place(error)}: {text.split('. ')[0].rstrip('.')}."


def _place(error: Exception) -> str:
    """Return a clause that names the line of the model at which an export ended."""
    own = Path(__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if _TORCH not in path.parents and own not in path.parents and path.exists():
            return f" in {frame.filename}, line {frame.lineno} ({(frame.line or '').strip()})"
    return ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep from standard error what torch.export logs before it raises, and one warning about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.fx.experimental.symbolic_shapes", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # Programs are copied in a way that PyTorch itself deprecates.
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def layer_of(node: Node) -> str:
    """Return the path of the module that a node of a program comes from; empty for the network itself."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


class _Recorder(Interpreter):
    """Runs a program and keeps every tensor, by the name of its node."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.module())
        self.values: dict[str, Tensor] = {}

    def run_node(self, node: Node) -> Any:
        value = super().run_node(node)
        if isinstance(value, Tensor) and node.op == "call_function":
            self.values[node.name] = value
        return value


def node_values(program: ExportedProgram, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Return every tensor a program computes on ``inputs``, by the name of its node, in the order of the graph."""
    with torch.no_grad(), quiet():
        recorder = _Recorder(program)
        recorder.run(*inputs)
    return recorder.values
