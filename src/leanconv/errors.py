"""The one exception for mistakes a user can correct."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in what the caller asked for.

    The message is one sentence that names the argument, its value and what would work.  The command line
    prints it without a traceback and exits with status 2; in Python it is a :class:`ValueError`.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a clause that suggests the known names closest to ``name``, or lists a few of them.

    Args:
        name: What was asked for.
        known: Every name that would have worked.
    """
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(match) for match in close) + "?"
    return "known names are " + ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
