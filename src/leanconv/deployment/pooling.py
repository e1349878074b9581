"""Pools that round sizes up where there is nothing to round, for which runtimes have no fast kernel."""

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

_AVERAGE = (torch.ops.aten.avg_pool1d, torch.ops.aten.avg_pool2d, torch.ops.aten.avg_pool3d)
_LARGEST = (torch.ops.aten.max_pool1d, torch.ops.aten.max_pool2d, torch.ops.aten.max_pool3d)


def round_down(program: ExportedProgram) -> ExportedProgram:
    """Let pools round sizes down, as they do by default, where up is the same at the program's sizes.

    ONNX Runtime's blocked kernels exclude pools that round up: on 240 channels of 32x32 one takes sixteen times as
    long, and the layout is changed before and after it.

    Args:
        program: Changed in place; the sizes of images are constants in it.

    Returns:
        The program.
    """
    for node in program.graph.nodes:
        if node.op == "call_function" and _rounds_up(node) and _fits(node):
            node.args = tuple(
                False if argument.name == "ceil_mode" else value
                for argument, value in zip(node.target._schema.arguments, node.args, strict=False)
            )
    program.graph_module.recompile()
    return program


def _rounds_up(node: Node) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    return packet in (*_AVERAGE, *_LARGEST) and _arguments(node).get("ceil_mode", False) is True


def _fits(node: Node) -> bool:
    """Whether the windows of a pool end where its input, with the padding, ends."""
    given = _arguments(node)
    sizes = given["self"].meta["val"].shape[-len(given["kernel_size"]) :]
    kernel = _each(given["kernel_size"], len(sizes))
    stride = _each(given.get("stride") or kernel, len(sizes))
    padding = _each(given.get("padding", 0), len(sizes))
    dilation = _each(given.get("dilation", 1), len(sizes))
    return all(
        isinstance(size, int) and (size + 2 * pad - step * (taps - 1) - 1) % move == 0
        for size, taps, move, pad, step in zip(sizes, kernel, stride, padding, dilation, strict=True)
    )


def _arguments(node: Node) -> dict[str, Any]:
    assert isinstance(node.target, torch._ops.OpOverload)
    names = (argument.name for argument in node.target._schema.arguments)
    return dict(zip(names, node.args, strict=False))


def _each(value: Any, dims: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * dims if len(values) == 1 else values
