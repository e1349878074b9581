"""Labels beside points, placed so that they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

# Where a label may sit relative to its point: direction, and the text's alignment there.
_PLACES = (
    (1.0, 0.0, "left", "center"),
    (-1.0, 0.0, "right", "center"),
    (0.0, 1.0, "center", "bottom"),
    (0.0, -1.0, "center", "top"),
    (0.8, 0.8, "left", "bottom"),
    (0.8, -0.8, "left", "top"),
    (-0.8, 0.8, "right", "bottom"),
    (-0.8, -0.8, "right", "top"),
)
_DISTANCES = (9.0, 16.0, 26.0, 40.0)


def place_labels(
    axes: Axes,
    labels: Sequence[str],
    xs: Sequence[float],
    ys: Sequence[float],
    obstacles: Sequence[Bbox],
    *,
    colors: Sequence[str],
    line_color: str,
) -> None:
    """Annotate every point with its label at the free place nearest to it.

    Places are tried around the point, then further away with a thin line back to it; when nothing is free
    the place with the least covered area wins.  Labels stay inside the axes.

    Args:
        axes: Where the points are drawn; limits and scales must be final.
        labels: One text a point.
        xs: Data coordinates.
        ys: Data coordinates.
        obstacles: What labels should not cover (markers, error bars), in pixels of the figure.
        colors: Text colour of every label.
        line_color: Colour of the lines to labels that had to move away.
    """
    figure = axes.figure
    figure.canvas.draw()
    frame = axes.get_window_extent()
    taken = list(obstacles)
    # Points at the rim have fewer free places: label them first.
    centre = (frame.x0 + frame.x1) / 2
    pixels = axes.transData.transform(list(zip(xs, ys, strict=True)))
    order = sorted(range(len(labels)), key=lambda index: -abs(pixels[index][0] - centre))
    for index in order:
        best: tuple[float, int, Bbox] | None = None
        candidates = []
        for distance in _DISTANCES:
            for dx, dy, horizontal, vertical in _PLACES:
                candidates.append((distance, dx * distance, dy * distance, horizontal, vertical))
        for number, (_, dx, dy, horizontal, vertical) in enumerate(candidates):
            text = axes.annotate(
                labels[index],
                (xs[index], ys[index]),
                xytext=(dx, dy),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=9,
            )
            box = text.get_window_extent()
            text.remove()
            covered = sum(_overlap(box, other) for other in taken)
            outside = box.width * box.height - _overlap(box, frame)
            cost = covered + 4 * outside
            if best is None or cost < best[0] - 1e-9:
                best = (cost, number, box)
            if cost == 0:
                break
        assert best is not None
        distance, dx, dy, horizontal, vertical = candidates[best[1]]
        axes.annotate(
            labels[index],
            (xs[index], ys[index]),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            fontsize=9,
            color=colors[index],
            zorder=5,
            arrowprops=(
                {"arrowstyle": "-", "color": line_color, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5}
                if distance > _DISTANCES[0]
                else None
            ),
        )
        taken.append(best[2])


def _overlap(a: Bbox, b: Bbox) -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(width * height) if width > 0 and height > 0 else 0.0
