"""The record of an export: what was written, whether it computes the same, how fast, and what could be faster."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from leanconv.deployment.findings import Finding
from leanconv.deployment.verification import Parity
from leanconv.measurement import Latency, Ratio


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote and what it does.

    Attributes:
        path: The file; OpenVINO's weights lie beside it as ``.bin``.
        engine: What runs it.
        model: Name of the network, or of its class.
        input_shapes: Shape of each example input, batch included.
        dynamic_batch: Whether the file takes any batch size.
        dtype: ``"int8"``, or the type of the network's inputs.
        bytes: Size of the file, weights included.
        parity: Comparisons with PyTorch; empty if not verified.
        latency: Time of the example batch, by engine, measured in turns; empty if not verified.
        speedup: Time of eager PyTorch over that of this export, round by round; None if not verified.
        int8_speedup: Time of the same export in floating point over that of the int8 one.
        accuracy: Top-1 accuracy by engine on the labelled inputs; None without them.
        findings: Slow forms that were found.
        environment: Machine, library versions and date.
    """

    path: str
    engine: str
    model: str
    input_shapes: tuple[tuple[int, ...], ...]
    dynamic_batch: bool
    dtype: str
    bytes: int
    parity: tuple[Parity, ...]
    latency: dict[str, Latency]
    speedup: Ratio | None
    int8_speedup: Ratio | None
    accuracy: dict[str, float] | None
    findings: tuple[Finding, ...]
    environment: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return asdict(self)

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
