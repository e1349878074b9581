"""What a lint rule reports."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One slow form in a network.

    Attributes:
        rule: Name of the rule.
        layers: Paths of the modules it was found in.
        problem: What is slow there.
        fix: What to do.
        threads: Upstream threads it comes from, as ``owner/repository#number``.
    """

    rule: str
    layers: tuple[str, ...]
    problem: str
    fix: str
    threads: tuple[str, ...]
