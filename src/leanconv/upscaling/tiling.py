"""Cutting a picture into pieces with margins."""

from collections.abc import Iterator
from dataclasses import dataclass

Area = tuple[slice, slice]


@dataclass(frozen=True)
class Span:
    """Part of a line.

    Attributes:
        start: First pixel of the part.
        stop: Behind its last one.
        outer_start: First pixel to compute from.
        outer_stop: Behind the last one.
    """

    start: int
    stop: int
    outer_start: int
    outer_stop: int


@dataclass(frozen=True)
class Tile:
    """Part of a picture.

    Attributes:
        rows: Along the height.
        columns: Along the width.
    """

    rows: Span
    columns: Span

    @property
    def outer(self) -> Area:
        """What to compute from."""
        return slice(self.rows.outer_start, self.rows.outer_stop), slice(
            self.columns.outer_start, self.columns.outer_stop
        )

    def target(self, scale: int) -> Area:
        """Return where the result belongs in the enlarged picture."""
        rows, columns = self.rows, self.columns
        return slice(scale * rows.start, scale * rows.stop), slice(scale * columns.start, scale * columns.stop)

    def kept(self, scale: int) -> Area:
        """Return which part of the enlarged outer area is the result."""
        return _kept(self.rows, scale), _kept(self.columns, scale)


def _kept(span: Span, scale: int) -> slice:
    return slice(scale * (span.start - span.outer_start), scale * (span.stop - span.outer_start))


def tiles(height: int, width: int, side: int, margin: int, period: int = 1) -> Iterator[Tile]:
    """Cut a picture into parts of about one size, row by row.

    Args:
        height: Of the picture.
        width: Of the picture.
        side: Largest height and width of a part without its margin.
        margin: Pixels around a part, fewer where the picture ends.
        period: What starts of outer areas are multiples of.
    """
    for rows in spans(height, side, margin, period):
        for columns in spans(width, side, margin, period):
            yield Tile(rows, columns)


def spans(length: int, side: int, margin: int, period: int = 1) -> list[Span]:
    """Cut a line into parts of about one length; the arguments are those of :func:`tiles`."""
    count = -(-length // side)
    size = _multiple(-(-length // count), period)
    around = _multiple(margin, period)
    return [
        Span(start, min(start + size, length), max(0, start - around), min(length, start + size + around))
        for start in range(0, length, size)
    ]


def _multiple(value: int, period: int) -> int:
    return -(-value // period) * period
