"""The Pareto picture: accuracy against latency and against multiply-accumulates."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanconv.comparison.extra import require_plot_extra
from leanconv.comparison.labels import place_labels
from leanconv.comparison.pareto import pareto_front
from leanconv.comparison.record import Comparison, Entry
from leanconv.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which is too pale for a label on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Wider than this between the extremes and a linear axis would crowd the small models.
_LOG_FROM = 3.0
PANELS = ("latency", "macs")


@dataclass(frozen=True)
class Theme:
    """Colours of a picture's ground, text and quiet lines."""

    ground: str
    text: str
    quiet: str
    grid: str


LIGHT = Theme(ground="#ffffff", text="#1f2328", quiet="#6e7781", grid="#e6e8eb")
DARK = Theme(ground="#161b22", text="#e6edf3", quiet="#8b949e", grid="#2b323b")


def save_picture(comparison: Comparison, path: str | Path) -> Path:
    """Write both panels side by side; the suffix picks the format (``.png``, ``.svg``, ``.pdf``).

    Raises:
        UserError: matplotlib is not installed, or the format is unknown.
    """
    return save_figure(draw(comparison, PANELS, title=_title(comparison)), path)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all; the suffix picks the format.

    Raises:
        UserError: The format is unknown.
    """
    path = Path(path)
    known = figure.canvas.get_supported_filetypes()
    kind = path.suffix.lstrip(".").lower()
    if kind not in known:
        raise UserError(f"path={str(path)!r} has no picture format as its suffix: use .png, .svg or .pdf.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    figure.savefig(temporary, format=kind, dpi=160, metadata=_no_date(kind))
    os.replace(temporary, path)
    return path


def svg(comparison: Comparison, panel: str, theme: Theme) -> str:
    """Return one panel as the text of an SVG image."""
    return svg_text(draw(comparison, (panel,), theme), panel)


def svg_text(figure: Figure, salt: str) -> str:
    """Return a figure as the text of an SVG image, the same every time; images of one page need different salts."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata=_no_date("svg"))
    return buffer.getvalue()


def draw(comparison: Comparison, panels: Sequence[str], theme: Theme = LIGHT, *, title: str | None = None) -> Figure:
    """Return a figure with the named panels (of ``PANELS``) side by side.

    Args:
        comparison: What to draw.
        panels: One or both of ``PANELS``.
        theme: Colours.
        title: A line above everything.

    Raises:
        UserError: matplotlib is not installed.
    """
    require_plot_extra()

    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # A panel on its own is shown on phones, too: smaller means larger letters there.
    size = (5.6 * len(panels), 4.5) if len(panels) > 1 else (4.8, 3.9)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1), facecolor=theme.ground)
    figure.set_dpi(100)
    if title:
        figure.suptitle(title, x=0.012, ha="left", color=theme.text, fontsize=12)
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw_panel(axes, comparison, panel, theme)
    for axes in all_axes[1:]:
        axes.set_ylabel("")
    # Labels are placed last and move nothing: their places depend on the final limits and layout.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, panel in zip(all_axes, panels, strict=True):
        _label_panel(axes, comparison, panel, theme)
    return figure


def _title(comparison: Comparison) -> str:
    width = comparison.settings["width"]
    settings = "" if width is None else f", base width {width}"
    return f"{len(comparison.entries)} networks trained alike on {comparison.settings['data']['name']}{settings}"


def _xs(comparison: Comparison, panel: str) -> list[float]:
    if panel == "latency":
        return [1e3 * entry.latency_s for entry in comparison.entries]
    return [entry.macs / 1e6 for entry in comparison.entries]


def _ys(comparison: Comparison) -> list[float]:
    return [100 * entry.accuracy for entry in comparison.entries]


def _x_errors(entry: Entry, panel: str) -> tuple[float, float]:
    if panel != "latency":
        return 0.0, 0.0
    latency = entry.latency
    return 1e3 * (latency.median_s - latency.q25_s), 1e3 * (latency.q75_s - latency.median_s)


def _draw_panel(axes: Axes, comparison: Comparison, panel: str, theme: Theme) -> None:
    entries = comparison.entries
    xs, ys = _xs(comparison, panel), _ys(comparison)
    logarithmic = max(xs) / min(xs) > _LOG_FROM
    if logarithmic:
        axes.set_xscale("log")

    for index, entry in enumerate(entries):
        low, high = _x_errors(entry, panel)
        color, marker = style(index)
        axes.errorbar(
            xs[index],
            ys[index],
            xerr=[[low], [high]],
            yerr=100 * (entry.accuracy_sd or 0.0),
            fmt=marker,
            color=color,
            markersize=8,
            markeredgecolor=theme.ground,
            markeredgewidth=0.8,
            elinewidth=1.2,
            capsize=2.5,
            zorder=3,
        )
    axes.margins(x=0.16, y=0.18)
    _draw_front(axes, xs, ys, theme)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, labelcolor=theme.text, borderaxespad=0.3
    )
    axes.set_xlabel(_x_title(comparison, panel) + (", logarithmic" if logarithmic else ""))
    axes.set_ylabel(_y_title(comparison))
    dress(axes, theme)
    if logarithmic:
        _plain_log_ticks(axes)
    else:
        axes.ticklabel_format(useOffset=False)


def _draw_front(axes: Axes, xs: Sequence[float], ys: Sequence[float], theme: Theme) -> None:
    corners = _front_corners(axes, xs, ys)
    axes.set_xlim(axes.get_xlim())
    axes.plot(
        [x for x, _ in corners],
        [y for _, y in corners],
        color=theme.quiet,
        linewidth=1.3,
        linestyle=(0, (4, 3)),
        zorder=1,
        label="Pareto front",
    )


def _front_corners(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    """Return the corners of the staircase under the front: what is above it no model reaches at that cost."""
    corners: list[tuple[float, float]] = []
    for index in pareto_front(xs, ys):
        if corners:
            corners.append((xs[index], corners[-1][1]))
        corners.append((xs[index], ys[index]))
    return [*corners, (axes.get_xlim()[1], corners[-1][1])]


def style(index: int) -> tuple[str, str]:
    """Return colour and marker of a model by its place in the comparison."""
    return _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]


def _x_title(comparison: Comparison, panel: str) -> str:
    if panel == "macs":
        return "Multiply-accumulates an image (millions)"
    latency = comparison.entries[0].latency
    threads = f"{latency.threads} thread" + ("s" if latency.threads != 1 else "")
    where = latency.device if latency.device != "cpu" else f"CPU, {threads}"
    return f"Latency of a batch of {latency.batch} in ms ({where})"


def _y_title(comparison: Comparison) -> str:
    seeds = len(comparison.seeds)
    spread = f"mean ± sd of {seeds} seeds" if seeds > 1 else "one seed"
    return f"Test accuracy in % ({spread})"


def dress(axes: Axes, theme: Theme) -> None:
    """Give axes the colours and lines that all pictures share."""
    axes.set_facecolor(theme.ground)
    axes.grid(True, which="major", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.quiet)
    axes.tick_params(which="both", colors=theme.quiet, labelsize=9)
    axes.xaxis.label.set(color=theme.text, fontsize=10)
    axes.yaxis.label.set(color=theme.text, fontsize=10)


def _plain_log_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    within_a_decade = high / low < 12
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 1.5, 2, 3, 4, 5, 7) if within_a_decade else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _label_panel(axes: Axes, comparison: Comparison, panel: str, theme: Theme) -> None:
    from matplotlib.transforms import Bbox

    entries = comparison.entries
    xs, ys = _xs(comparison, panel), _ys(comparison)
    obstacles = []

    def avoid(x0: float, y0: float, x1: float, y1: float, margin: float) -> None:
        (left, bottom), (right, top) = axes.transData.transform([(x0, y0), (x1, y1)])
        obstacles.append(Bbox.from_extents(left - margin, bottom - margin, right + margin, top + margin))

    for entry, x, y in zip(entries, xs, ys, strict=True):
        low, high = _x_errors(entry, panel)
        spread = 100 * (entry.accuracy_sd or 0.0)
        avoid(x, y, x, y, 7)
        avoid(x - low, y, x + high, y, 3)
        avoid(x, y - spread, x, y + spread, 3)
    for (x0, y0), (x1, y1) in pairwise(_front_corners(axes, xs, ys)):
        avoid(x0, y0, x1, y1, 2)
    place_labels(
        axes,
        [entry.model for entry in entries],
        xs,
        ys,
        obstacles,
        color=theme.text,
        line_color=theme.quiet,
    )


def _no_date(kind: str) -> dict[str, Any]:
    # The same record gives the same bytes.
    return {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else {}
