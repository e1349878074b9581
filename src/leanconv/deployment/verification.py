"""Does a runtime compute what PyTorch computes, and if not, from which layer on?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram

from leanconv.deployment.program import layer_of, node_values

#: Largest difference that the order of additions explains, as a share of the largest value.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
#: What rounding to 8 bits may cost; beyond it the calibration has failed.
INT8_TOLERANCE = 0.5


@dataclass(frozen=True)
class Parity:
    """Outputs of a runtime beside those of PyTorch.

    Attributes:
        inputs: ``"given"``, ``"random"`` or ``"calibration"``.
        batch: Rows.
        max_abs: Largest absolute difference.
        relative: The same as a share of the largest absolute value of that output.
        tolerance: What ``relative`` may be at most.
        agreement: Share of rows in which the largest of the outputs is the same one; None where outputs are no
            scores ``(N, classes)``.
    """

    inputs: str
    batch: int
    max_abs: float
    relative: float
    tolerance: float
    agreement: float | None

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.relative <= self.tolerance


def parity(inputs: str, expected: Sequence[Tensor], got: Sequence[Tensor], tolerance: float) -> Parity:
    """Compare outputs, one by one; shapes that differ and values that are not finite count as infinitely far off."""
    pairs = list(zip(expected, got, strict=False)) if len(expected) == len(got) else []
    differences = [difference(a, b) for a, b in pairs] or [(math.inf, math.inf)]
    scores = pairs[0] if len(pairs) == 1 and pairs[0][0].dim() == 2 and pairs[0][0].shape == pairs[0][1].shape else None
    agreement = None if scores is None else (scores[0].argmax(1) == scores[1].argmax(1)).double().mean().item()
    return Parity(
        inputs=inputs,
        batch=expected[0].shape[0] if expected[0].dim() else 1,
        max_abs=max(absolute for absolute, _ in differences),
        relative=max(relative for _, relative in differences),
        tolerance=tolerance,
        agreement=agreement,
    )


def difference(expected: Tensor, got: Tensor) -> tuple[float, float]:
    """Return the largest absolute difference, and its share of the largest absolute expected value."""
    if expected.shape != got.shape:
        return math.inf, math.inf
    if expected.numel() == 0:
        return 0.0, 0.0
    wanted, found = expected.detach().double(), got.detach().double()
    absolute = (wanted - found).abs().max().item()
    if not math.isfinite(absolute):
        same = torch.equal(wanted.nan_to_num(), found.nan_to_num())
        return (0.0, 0.0) if same else (math.inf, math.inf)
    scale = wanted.abs().max().item()
    return absolute, absolute / scale if scale else (math.inf if absolute else 0.0)


def first_difference(
    program: ExportedProgram, inputs: tuple[Tensor, ...], found: Mapping[str, Tensor], tolerance: float
) -> str | None:
    """Return a clause that names the first layer at which a runtime leaves the program; None if it cannot be said.

    Args:
        program: The program that was written.
        inputs: What both ran on.
        found: Values of the runtime, by names of the program's nodes.
        tolerance: Largest relative difference that counts as none.
    """
    nodes = {node.name: node for node in program.graph.nodes}
    for name, expected in node_values(program, inputs).items():
        if name in found and name in nodes and difference(expected, found[name])[1] > tolerance:
            layer = layer_of(nodes[name])
            return f"layer {layer!r} ({nodes[name].target})" if layer else f"operator {nodes[name].target}"
    return None
