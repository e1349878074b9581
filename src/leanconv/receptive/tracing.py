"""Traced networks: the graph that ``torch.export`` makes, and which layer each of its nodes belongs to."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from leanconv.errors import UserError
from leanconv.measurement.inputs import checked_size, default_size
from leanconv.measurement.placement import evaluating
from leanconv.receptive.constants import Constants

#: Frames of a traceback inside these are not the user's.
_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Trace:
    """A network as a graph of tensor operators.

    Attributes:
        source: The node of the image.
        nodes: Operators in order.
        outputs: The nodes that the network returns.
        constants: Tensors that do not depend on the image.
    """

    source: fx.Node
    nodes: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    constants: Constants

    @property
    def axes(self) -> int:
        """Number of spatial axes of the image."""
        return len(shape_of(self.source)) - 2


def trace(model: nn.Module, input_size: Sequence[int] | None = None) -> Trace:
    """Trace a network in evaluation mode.

    Args:
        model: Takes one image batch.
        input_size: Batch, channels and one to three spatial lengths; by default one image of ``model.input_size``.

    Raises:
        UserError: ``torch.export`` refuses the network, its shapes depend on the image's content, or the size has not
            three to five numbers or does not fit the network.
    """
    size = checked_size(default_size(model) if input_size is None else input_size)
    if not 3 <= len(size) <= 5:
        raise UserError(
            f"`input_size` must be a batch, channels and one to three lengths, such as (1, 3, 32, 32), got {size}."
        )
    reference = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    image = torch.zeros(size, dtype=reference.dtype, device=reference.device)
    with evaluating(model), torch.no_grad():
        _try(model, image)
        try:
            program = torch.export.export(model, (image,), strict=False)
        except Exception as error:
            raise UserError(_refusal(error)) from error
    return _read(program)


def _try(model: nn.Module, image: Tensor) -> None:
    """Refuse images that the network cannot take, before the tracer finds words of its own for it."""
    shapes = image.to("meta")
    try:
        from leanconv.measurement.forward import without_data

        with torch.device("meta"):
            without_data(model)(shapes)
    except NotImplementedError:
        return
    except Exception as error:
        if "meta" in str(error).lower():
            return
        if isinstance(error, RuntimeError | ValueError | IndexError | AssertionError):
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise UserError(
                f"`input_size` {tuple(image.shape)} does not fit the network: {reason}; "
                "larger images, or as many channels as its first layer reads, would work."
            ) from error


def _read(program: ExportedProgram) -> Trace:
    specs = program.graph_signature.input_specs
    names = {getattr(spec.arg, "name", "") for spec in specs if spec.kind == InputKind.USER_INPUT}
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    sources = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    (result,) = (node for node in program.graph.nodes if node.op == "output")
    for node in nodes:
        value = node.meta.get("val")
        values = value if isinstance(value, list | tuple) else [value]
        if any(not isinstance(length, int) for v in values if isinstance(v, Tensor) for length in v.shape):
            raise UserError(
                f"`model` has shapes that depend on the image's content at {_line_of(node)}; "
                "selecting a fixed number of elements, or multiplying by a mask, would work."
            )
    outputs = [node for node in result.all_input_nodes if isinstance(node.meta.get("val"), Tensor)]
    return Trace(sources[0], tuple(nodes), tuple(outputs), Constants(program))


def _line_of(node: fx.Node) -> str:
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").strip().splitlines()]
    if len(lines) < 2:
        return f"operator {node.target}"
    place = lines[-2].removeprefix("File ").split(", in ")[0]
    return f"{place}: {lines[-1]}"


def _refusal(error: Exception) -> str:
    """Return a sentence that names the line the tracer stopped at, and what to change."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_TORCH)]
    frames = [f for f in frames if f.filename != __file__]
    where = f"line {frames[-1].lineno} of {frames[-1].filename}: {frames[-1].line}" if frames else "an unknown line"
    text = str(error)
    depends = any(word in text for word in ("data-dependent", "data dependent", "Dynamic control flow", "guard on"))
    if depends or "GuardOnDataDependent" in type(error).__name__:
        advice = "a choice that depends on the image cannot be traced; torch.where, or torch.cond, would work"
    else:
        reason = (text.strip() or type(error).__name__).splitlines()[0].rstrip(".")
        advice = f"{reason}; tensor operators of PyTorch in its place would work"
    return f"`model` cannot be traced by torch.export at {where}: {advice}."


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of the (first) tensor a node makes, or of none an empty tuple."""
    value = node.meta.get("val")
    value = value[0] if isinstance(value, list | tuple) and value else value
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def layer_of(node: fx.Node) -> tuple[tuple[str, str], ...]:
    """Return names and class names of the modules a node belongs to, outermost first, without the network itself."""
    stack = (node.meta.get("nn_module_stack") or {}).values()
    return tuple((path.split("@")[0], str(kind).rsplit(".", 1)[-1]) for path, kind in stack if path)
