"""Known slow forms: what a runtime will be slow at, where, why, and what to write instead.

Rules read the exported program, so they see functional calls and modules alike.  What is slow where was taken from
the threads that each rule names, and from operator times measured on CPUs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from leanconv.deployment.findings import Finding
from leanconv.deployment.program import export_program, layer_of, quiet
from leanconv.measurement.inputs import example_inputs
from leanconv.measurement.placement import evaluating

ONNX, OPENVINO, TORCH, COMPILED = ".onnx", ".xml", ".pt2", ".aoti.pt2"
_EVERYWHERE = (ONNX, OPENVINO, TORCH, COMPILED)
_BLOCK = 8
_LARGE = 7


@dataclass(frozen=True)
class _Conv:
    """A convolution of a program."""

    node: Node
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.weight[2:]

    @property
    def in_channels(self) -> int:
        return self.groups * self.weight[1]

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.weight[1] == 1

    @property
    def grouped(self) -> bool:
        return self.groups > 1 and self.weight[1] > 1


@dataclass(frozen=True)
class _Program:
    """What rules look at."""

    nodes: tuple[Node, ...]
    int8: bool

    @cached_property
    def convolutions(self) -> tuple[_Conv, ...]:
        return tuple(_convolution(node) for node in self.nodes if _operator(node) == "convolution")


def _operator(node: Node) -> str:
    """Return the name of an operator without namespace and overload."""
    target = node.target
    return str(target._schema.name).split("::")[-1] if isinstance(target, torch._ops.OpOverload) else ""


def _value(node: Any) -> Tensor | None:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return value if isinstance(value, Tensor) else None


def _convolution(node: Node) -> _Conv:
    weight = _value(node.args[1])
    assert weight is not None
    stride, dilation, groups = node.args[3], node.args[5], node.args[8]
    return _Conv(node, tuple(map(int, weight.shape)), tuple(stride), tuple(dilation), int(groups))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Rule:
    """A slow form.

    Attributes:
        name: Of the rule.
        targets: Suffixes of the exports it is slow in.
        problem: What is slow.
        fix: What to do instead.
        threads: Upstream threads, as ``owner/repository#number``.
        find: Yields the nodes of that form.
    """

    name: str
    targets: tuple[str, ...]
    problem: str
    fix: str
    threads: tuple[str, ...]
    find: Callable[[_Program], Iterator[Node]]


def _scatters(program: _Program) -> Iterator[Node]:
    names = {"slice_scatter", "select_scatter", "scatter", "index_put", "scatter_add", "masked_scatter"}
    return (node for node in program.nodes if _operator(node) in names)


def _asymmetric_depthwise(program: _Program) -> Iterator[Node]:
    for conv in program.convolutions:
        if conv.depthwise and len(conv.kernel) == 2 and min(conv.kernel) == 1 < max(conv.kernel):
            yield conv.node


def _multiplied_depthwise(program: _Program) -> Iterator[Node]:
    return (conv.node for conv in program.convolutions if conv.depthwise and conv.weight[0] > conv.groups)


def _large_depthwise(program: _Program) -> Iterator[Node]:
    for conv in program.convolutions:
        if conv.depthwise and len(conv.kernel) == 2 and min(conv.kernel) >= _LARGE:
            yield conv.node


def _depthwise_along_one_axis(program: _Program) -> Iterator[Node]:
    return (conv.node for conv in program.convolutions if conv.depthwise and len(conv.kernel) == 1)


def _depthwise_in_volumes(program: _Program) -> Iterator[Node]:
    return (conv.node for conv in program.convolutions if conv.depthwise and len(conv.kernel) == 3)


def _unusual_depthwise(program: _Program) -> Iterator[Node]:
    for conv in program.convolutions:
        usual = conv.kernel == (3, 3) and set(conv.stride) == {1} and set(conv.dilation) == {1}
        if conv.depthwise and len(conv.kernel) == 2 and not usual:
            yield conv.node


def _transposed_depthwise(program: _Program) -> Iterator[Node]:
    for conv in program.convolutions:
        neighbours = [conv.node.args[0], *conv.node.users]
        if conv.depthwise and any(isinstance(n, Node) and _moves_channels(n) for n in neighbours):
            yield conv.node


def _moves_channels(node: Node) -> bool:
    if _operator(node) != "permute":
        return False
    order = node.args[1]
    return isinstance(order, (list, tuple)) and tuple(order) in {(0, 2, 3, 1), (0, 3, 1, 2)}


def _odd_channels(program: _Program) -> Iterator[Node]:
    """Yield dense convolutions between wide layers; the first and last layers have the channels they must have."""
    for conv in program.convolutions:
        channels = (conv.weight[0], conv.in_channels)
        if conv.groups == 1 and min(channels) > _BLOCK and any(count % _BLOCK for count in channels):
            yield conv.node


def _grouped_int8(program: _Program) -> Iterator[Node]:
    return (conv.node for conv in program.convolutions if program.int8 and conv.grouped)


def _fallbacks(program: _Program) -> Iterator[Node]:
    """Yield operators that become loops or many small ones: those with ``as_strided``, sorting or own kernels."""
    names = {"as_strided", "unfold", "im2col", "col2im", "grid_sampler_2d", "sort", "unique", "nonzero", "cumsum"}
    return (node for node in program.nodes if _operator(node) in names)


def _lone_batch_norms(program: _Program) -> Iterator[Node]:
    """Yield batch norms that no exporter folds: those not right behind a convolution that feeds nothing else."""
    for node in program.nodes:
        if "batch_norm" in _operator(node):
            before = node.args[0]
            if not (isinstance(before, Node) and _operator(before) == "convolution" and len(before.users) == 1):
                yield node


RULES: tuple[Rule, ...] = (
    Rule(
        "scatter",
        _EVERYWHERE,
        "assigning to slices becomes a chain of ScatterND, 14 to 16 times slower than the same values concatenated",
        "write it as pad, slice and cat, as leanconv's shift operators do",
        ("microsoft/onnxscript#1925", "pytorch/pytorch#124915"),
        _scatters,
    ),
    Rule(
        "asymmetric-depthwise",
        (TORCH, COMPILED),
        "depthwise kernels of one row or column have no fast path in PyTorch, square ones have",
        "merge the pair into one square kernel: leanconv.fold(model)",
        ("pytorch/pytorch#30933", "FluxML/Flux.jl#2626"),
        _asymmetric_depthwise,
    ),
    Rule(
        "transposed-depthwise",
        (ONNX,),
        "depthwise convolution with channels innermost regressed severely in ONNX Runtime and was switched off, so "
        "the transposition is paid for nothing",
        "keep channels first around it",
        ("microsoft/onnxruntime#28565", "microsoft/onnxruntime#29127"),
        _transposed_depthwise,
    ),
    Rule(
        "unusual-depthwise",
        (ONNX,),
        "ONNX Runtime's depthwise kernel for Arm covers 3x3 with stride and dilation 1 alone; others are generic there",
        "prefer 3x3 with stride 1 where the export runs on Arm, or export for another runtime",
        ("microsoft/onnxruntime#26688",),
        _unusual_depthwise,
    ),
    Rule(
        "depthwise-multiplier",
        _EVERYWHERE,
        "several outputs a channel are fast in ONNX Runtime with AVX-512 only, and hundreds of times slower in LiteRT",
        "widen the pointwise convolution before it, and keep one output a channel",
        ("google-ai-edge/litert-torch#1211", "microsoft/onnxruntime#27874"),
        _multiplied_depthwise,
    ),
    Rule(
        "large-depthwise",
        (TORCH, COMPILED),
        "large depthwise kernels are several times slower in PyTorch than their arithmetic suggests",
        "use an axial pair of the same extent, or export to .onnx",
        ("pytorch/pytorch#74363", "pytorch/pytorch#85252"),
        _large_depthwise,
    ),
    Rule(
        "depthwise-1d",
        (TORCH, COMPILED),
        "depthwise convolution of signals runs generic kernels in PyTorch, up to ten times slower",
        "use a 2-D convolution with one row, or export to .onnx",
        ("pytorch/pytorch#75747", "pytorch/pytorch#170138", "pytorch/pytorch#192902"),
        _depthwise_along_one_axis,
    ),
    Rule(
        "depthwise-3d",
        (TORCH, COMPILED),
        "depthwise convolution of volumes has no fast path in PyTorch",
        "split it into a 2-D and a 1-D convolution, or export to .onnx",
        ("pytorch/pytorch#110885",),
        _depthwise_in_volumes,
    ),
    Rule(
        "odd-channels",
        _EVERYWHERE,
        f"channel counts that are no multiple of {_BLOCK} are padded to one inside the kernels, which compute the rest",
        f"use multiples of {_BLOCK}",
        ("uxlfoundation/oneDNN#495", "uxlfoundation/oneDNN#381"),
        _odd_channels,
    ),
    Rule(
        "grouped-int8",
        (ONNX,),
        "TensorRT splits int8 convolutions with groups into one call a group, slower than in half precision",
        "use depthwise or dense convolutions where the export runs on TensorRT, or stay in floating point",
        ("NVIDIA/TensorRT#4529",),
        _grouped_int8,
    ),
    Rule(
        "opset-fallback",
        (ONNX, OPENVINO),
        "the operator has no kernel of its own in the target's operator set and becomes many small ones",
        "write it with convolutions, slices and concatenation",
        ("microsoft/onnxscript#1308",),
        _fallbacks,
    ),
    Rule(
        "lone-batch-norm",
        _EVERYWHERE,
        "a batch norm that does not follow a convolution stays a pass over memory of its own",
        "leanconv.fold(model) merges it where the algebra allows; else put it behind a convolution",
        ("pytorch/pytorch#18631",),
        _lone_batch_norms,
    ),
)


def lint_program(program: ExportedProgram, target: str, *, int8: bool = False) -> tuple[Finding, ...]:
    """Return the slow forms of a program in a target.

    Args:
        program: The exported network.
        target: Suffix of the export, such as ``".onnx"``.
        int8: Whether it computes in 8-bit integers.
    """
    with quiet():
        functional = program.run_decompositions()
    view = _Program(tuple(node for node in functional.graph.nodes if node.op == "call_function"), int8)
    findings = []
    for rule in RULES:
        if target not in rule.targets:
            continue
        layers = tuple(dict.fromkeys(layer_of(node) for node in rule.find(view)))
        if layers:
            findings.append(Finding(rule.name, layers, rule.problem, rule.fix, rule.threads))
    return tuple(findings)


def lint(model: nn.Module, target: str, example: Tensor | None = None, *, int8: bool = False) -> tuple[Finding, ...]:
    """Return the slow forms of a network in a target, without writing anything.

    Args:
        model: The network.
        target: Suffix of the export: ``".onnx"``, ``".xml"``, ``".pt2"`` or ``".aoti.pt2"``.
        example: An input, batch first; by default as in :func:`leanconv.export`.
        int8: Whether it is to compute in 8-bit integers.

    Raises:
        UserError: The network cannot be exported.
    """
    with evaluating(model):
        program = export_program(model, example_inputs(model, example=example))
    return lint_program(program, target, int8=int8)
