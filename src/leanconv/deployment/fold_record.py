"""What folding did to a network and why."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fold:
    """Layers that became one.

    Attributes:
        layers: Their names, in the order they are called.
        became: Name of what is in their place.
        why: A clause that says what was done.
        before: What they cost: seconds where times were measured, else units of the target's prices.
        after: What it costs.
    """

    layers: tuple[str, ...]
    became: str
    why: str
    before: float
    after: float


@dataclass
class FoldRecord:
    """What was folded, what was not, and why.

    Attributes:
        target: Whose prices decided.
        folds: In the order they were made; later ones may take in what earlier ones made.
        kept: Why layers that might have been folded were not, by name.
        input_size: What the network was folded for, if that was said.
        measured: Whether times decided.
    """

    target: str
    folds: list[Fold] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    input_size: tuple[int, ...] | None = None
    measured: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the record in types that JSON knows."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def __str__(self) -> str:
        lines = [f"{' + '.join(fold.layers)} -> {fold.became}: {fold.why}" for fold in self.folds]
        return "\n".join([*lines, *(f"{name} is kept: {why}" for name, why in self.kept.items())])
