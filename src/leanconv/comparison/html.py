"""The comparison as one self-contained HTML page."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from leanconv.comparison import units
from leanconv.comparison.engine_picture import engine_svg
from leanconv.comparison.extra import require_plot_extra
from leanconv.comparison.ledger import flat
from leanconv.comparison.picture import DARK, LIGHT, PANELS, svg
from leanconv.comparison.record import Comparison, Entry
from leanconv.comparison.summary import sentences


def save_html(comparison: Comparison, path: str | Path, *, command: str | None = None) -> Path:
    """Write the report page; it refers to nothing outside itself.

    Args:
        comparison: What to report.
        path: The HTML file.
        command: The command line that repeats the comparison, shown under "How to reproduce".

    Raises:
        UserError: matplotlib or jinja2 is not installed.
    """
    path = Path(path)
    page = render_html(comparison, command=command)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def render_html(comparison: Comparison, *, command: str | None = None) -> str:
    """Return the report page as text (see :func:`save_html`)."""
    require_plot_extra()

    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("leanconv.comparison", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        rows=[_row(comparison, entry) for entry in comparison.entries],
        baseline=comparison.baseline,
        seeds=comparison.seeds,
        sentences=sentences(comparison),
        pictures=[_picture(comparison, panel) for panel in PANELS],
        engines=comparison.engines,
        engine_rows=[_engine_row(comparison, entry) for entry in comparison.entries],
        engine_picture=_engine_picture(comparison) if comparison.engines else None,
        runs=[
            {
                "model": run.model,
                "seed": run.seed,
                "accuracy": units.percent(run.accuracy),
                "best": units.percent(run.best_accuracy),
                "loss": f"{run.loss:.4f}",
                "epochs": run.epochs,
                "time": units.duration(run.seconds),
            }
            for entry in comparison.entries
            for run in entry.runs
        ],
        settings=[(name, _words(value)) for name, value in flat(comparison.settings)],
        environment=[(name, _words(value)) for name, value in flat(comparison.environment)],
        device=comparison.environment["device"],
        data=comparison.settings["data"],
        latency=comparison.entries[0].latency,
        command=command,
    )


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "default" if value is None else str(value)


def _row(comparison: Comparison, entry: Entry) -> dict[str, Any]:
    def cost(name: str, text: str) -> dict[str, str]:
        ratio = comparison.ratio(entry, name)
        return {
            "text": text,
            "ratio": f"{ratio:.2f}×",
            "trend": _trend(ratio),
        }

    difference = comparison.difference(entry)
    latency = entry.latency
    return {
        "model": entry.model,
        "is_baseline": entry.model == comparison.baseline,
        "accuracy": units.percent(entry.accuracy, entry.accuracy_sd),
        "difference": f"{100 * difference.mean:+.2f}",
        "interval": ""
        if difference.low is None or difference.high is None
        else f"{100 * difference.low:+.2f} … {100 * difference.high:+.2f}",
        "costs": [
            cost("params", units.count(entry.params)),
            cost("macs", units.count(entry.macs)),
            cost("bytes_moved", units.memory(entry.bytes_moved)),
            cost("peak_memory", units.memory(entry.peak_memory)),
            {
                **cost("latency_s", units.duration(latency.median_s)),
                "spread": f"{units.duration(latency.q25_s)} – {units.duration(latency.q75_s)}",
            },
        ],
    }


def _engine_row(comparison: Comparison, entry: Entry) -> dict[str, Any]:
    def cell(engine: str) -> dict[str, str]:
        latency, ratio = entry.engines[engine], comparison.engine_ratio(entry, engine).median
        return {
            "text": units.duration(latency.median_s),
            "ratio": f"{ratio:.2f}×",
            "trend": _trend(ratio),
            "spread": f"{units.duration(latency.q25_s)} – {units.duration(latency.q75_s)}",
        }

    return {
        "model": entry.model,
        "is_baseline": entry.model == comparison.baseline,
        "cells": [cell(engine) for engine in comparison.engines],
    }


def _trend(ratio: float) -> str:
    return "less" if ratio < 0.995 else "more" if ratio > 1.005 else "same"


def _uri(text: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def _engine_picture(comparison: Comparison) -> dict[str, str]:
    return {
        "light": _uri(engine_svg(comparison, LIGHT)),
        "dark": _uri(engine_svg(comparison, DARK)),
        "text": f"Latency in {', '.join(comparison.engines)} of "
        + ", ".join(entry.model for entry in comparison.entries),
    }


def _picture(comparison: Comparison, panel: str) -> dict[str, str]:
    against = {"latency": "latency", "macs": "multiply-accumulates"}[panel]
    return {
        "light": _uri(svg(comparison, panel, LIGHT)),
        "dark": _uri(svg(comparison, panel, DARK)),
        "text": f"Test accuracy against {against} of " + ", ".join(entry.model for entry in comparison.entries),
    }
