"""Labels beside points, placed so that they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

_FONT_SIZE = 9
_CLOSE = 9.0
# Distances from the point, in typographic points; beyond the first a thin line leads back to the point.
_DISTANCES = (_CLOSE, 18.0, 28.0, 40.0, 54.0)
# Where a label may sit relative to its point: direction, and the text's alignment there; the first are liked best.
_SIDES = (
    (1.0, 0.0, "left", "center"),
    (0.0, 1.0, "center", "bottom"),
    (0.0, -1.0, "center", "top"),
    (-1.0, 0.0, "right", "center"),
    (0.7, 0.7, "left", "bottom"),
    (0.7, -0.7, "left", "top"),
    (-0.7, 0.7, "right", "bottom"),
    (-0.7, -0.7, "right", "top"),
)
_PADDING = 2.0
# Costs are in square pixels covered.  Being cut off at the rim is worse than covering something.
_OUTSIDE = 10.0
_LINE_ACROSS = 150.0
_PER_POINT = 1.5
_ROUNDS = 4


@dataclass(frozen=True)
class _Place:
    """A possible place of a label: offset in typographic points, alignment, and its box in pixels."""

    dx: float
    dy: float
    horizontal: str
    vertical: str
    distance: float
    box: Bbox


def place_labels(
    axes: Axes,
    labels: Sequence[str],
    xs: Sequence[float],
    ys: Sequence[float],
    obstacles: Sequence[Bbox],
    *,
    color: str,
    line_color: str,
) -> None:
    """Annotate every point with its label, near it and where little is covered.

    Every label in turn takes the place that costs least given the others, a few times over.

    Args:
        axes: Where the points are drawn; layout, limits and scales must be final.
        labels: One text a point.
        xs: Data coordinates.
        ys: Data coordinates.
        obstacles: What labels should not cover (markers, error bars), in pixels of the figure.
        color: Colour of the text.
        line_color: Colour of the lines to labels that had to move away.
    """
    frame = axes.get_window_extent()
    points = axes.transData.transform(list(zip(xs, ys, strict=True)))
    places = [_places(axes, label, point) for label, point in zip(labels, points, strict=True)]
    chosen: list[_Place | None] = [None] * len(labels)
    for _ in range(_ROUNDS):
        for index, point in enumerate(points):
            others = [place.box for other, place in enumerate(chosen) if place and other != index]
            costs = [_cost(place, point, frame, obstacles, others) for place in places[index]]
            chosen[index] = places[index][costs.index(min(costs))]
    line = {"arrowstyle": "-", "color": line_color, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 6}
    for label, x, y, place in zip(labels, xs, ys, chosen, strict=True):
        assert place is not None
        axes.annotate(
            label,
            (x, y),
            xytext=(place.dx, place.dy),
            textcoords="offset points",
            ha=place.horizontal,
            va=place.vertical,
            fontsize=_FONT_SIZE,
            color=color,
            zorder=5,
            arrowprops=line if place.distance > _CLOSE else None,
        )


def _places(axes: Axes, label: str, point: Sequence[float]) -> list[_Place]:
    from matplotlib.transforms import Bbox

    trial = axes.text(0, 0, label, fontsize=_FONT_SIZE)
    extent = trial.get_window_extent()
    trial.remove()
    width, height = extent.width + 2 * _PADDING, extent.height + 2 * _PADDING
    pixels = axes.figure.dpi / 72
    shift_x = {"left": 0.0, "center": -0.5, "right": -1.0}
    shift_y = {"bottom": 0.0, "center": -0.5, "top": -1.0}
    found = []
    for distance, (dx, dy, horizontal, vertical) in product(_DISTANCES, _SIDES):
        left = point[0] + pixels * dx * distance + shift_x[horizontal] * width
        bottom = point[1] + pixels * dy * distance + shift_y[vertical] * height
        box = Bbox.from_bounds(left, bottom, width, height)
        found.append(_Place(dx * distance, dy * distance, horizontal, vertical, distance, box))
    return found


def _cost(
    place: _Place, point: Sequence[float], frame: Bbox, obstacles: Sequence[Bbox], labels: Sequence[Bbox]
) -> float:
    from matplotlib.path import Path

    box = place.box
    cost = _PER_POINT * place.distance
    cost += sum(_overlap(box, other) for other in obstacles) + 2 * sum(_overlap(box, other) for other in labels)
    cost += _OUTSIDE * (box.width * box.height - _overlap(box, frame))
    if place.distance > _CLOSE:
        centre = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
        line = Path([tuple(point), centre])
        crossed = [other for other in [*obstacles, *labels] if line.intersects_bbox(other, filled=False)]
        # The line always begins on the point's own marker and error bars.
        cost += _LINE_ACROSS * sum(not other.contains(*point) for other in crossed)
    return cost


def _overlap(a: Bbox, b: Bbox) -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(width * height) if width > 0 and height > 0 else 0.0
