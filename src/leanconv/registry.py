"""Names for things: one small class behind models, operators, data sets and targets."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from leanconv.errors import UserError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """A dictionary from names to objects that refuses duplicates and suggests near names.

    Args:
        kind: What is registered, in the singular; it is used in messages (``"model"``).

    Example:
        >>> shapes = Registry[type]("shape")
        >>> @shapes.register
        ... class circle: ...
        >>> shapes.names("c*")
        ['circle']
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, entry: T, name: str | None = None) -> T:
        """Add ``entry`` under ``name`` (its ``__name__`` by default) and return it, so it decorates.

        Raises:
            KeyError: The name is taken.
        """
        key = name or str(getattr(entry, "__name__", ""))
        if not key or key in self._entries:
            raise KeyError(f"{self.kind} {key!r} is registered already, or has no name.")
        self._entries[key] = entry
        return entry

    def named(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers under a given name."""
        return lambda entry: self.register(entry, name)

    def names(self, pattern: str = "*") -> list[str]:
        """Return the sorted names that match a shell-style ``pattern``."""
        return sorted(name for name in self._entries if fnmatchcase(name, pattern))

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise UserError(f"Unknown {self.kind} {name!r}: {nearest(name, self._entries)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
