"""Checks of the numbers that callers pass."""

from leanconv.errors import UserError


def positive(name: str, value: int) -> int:
    """Return ``value``, an argument called ``name``, or say that it must be a positive integer.

    Raises:
        UserError: It is not an integer, or less than one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"`{name}` must be a positive integer, got {value!r}.")
    return value
