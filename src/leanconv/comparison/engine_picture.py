"""Bars of the times that networks take in every engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leanconv.comparison import units
from leanconv.comparison.extra import require_plot_extra
from leanconv.comparison.picture import LIGHT, Theme, dress, save_figure, style, svg_text
from leanconv.comparison.record import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GROUP = 0.8


def save_engine_picture(comparison: Comparison, path: str | Path) -> Path:
    """Write the picture; the suffix picks the format (``.png``, ``.svg``, ``.pdf``).

    Raises:
        UserError: matplotlib is not installed, or the format is unknown.
    """
    return save_figure(draw_engines(comparison), path)


def engine_svg(comparison: Comparison, theme: Theme) -> str:
    """Return the picture as the text of an SVG image."""
    return svg_text(draw_engines(comparison, theme), "engines")


def draw_engines(comparison: Comparison, theme: Theme = LIGHT) -> Figure:
    """Return a figure: a group of bars for every engine, one bar a network, with its time at the end.

    Args:
        comparison: With times in engines.
        theme: Colours.

    Raises:
        UserError: matplotlib is not installed.
    """
    require_plot_extra()

    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engines, entries = comparison.engines, comparison.entries
    thickness = _GROUP / len(entries)
    figure = Figure(
        figsize=(5.6, 1.3 + 0.26 * len(engines) * (len(entries) + 1)),
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1),
        facecolor=theme.ground,
    )
    figure.set_dpi(100)
    axes = figure.subplots()
    for place, entry in enumerate(entries):
        times = [entry.engines[engine] for engine in engines]
        milliseconds = [1e3 * latency.median_s for latency in times]
        bars = axes.barh(
            [row - _GROUP / 2 + (place + 0.5) * thickness for row in range(len(engines))],
            milliseconds,
            height=0.9 * thickness,
            color=style(place)[0],
            xerr=[
                [1e3 * (latency.median_s - latency.q25_s) for latency in times],
                [1e3 * (latency.q75_s - latency.median_s) for latency in times],
            ],
            error_kw={"ecolor": theme.quiet, "elinewidth": 1.0},
            label=entry.model,
        )
        labels = [units.duration(latency.median_s) for latency in times]
        axes.bar_label(bars, labels, padding=4, fontsize=8, color=theme.text)
    axes.set_yticks(range(len(engines)), engines)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    latency = next(iter(entries[0].engines.values()))
    threads = f"{latency.threads} thread{'s' if latency.threads != 1 else ''}"
    axes.set_xlabel(f"Latency, folded, of a batch of {latency.batch} in ms (CPU, {threads})")
    figure.legend(
        loc="outside upper left", ncols=min(len(entries), 3), frameon=False, fontsize=9, labelcolor=theme.text
    )
    dress(axes, theme)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", colors=theme.text)
    return figure
