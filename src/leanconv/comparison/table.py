"""The comparison as a table for the terminal."""

from collections.abc import Iterable

from rich import box
from rich.table import Table

from leanconv.comparison import units
from leanconv.comparison.record import Comparison, Entry
from leanconv.measurement import Latency


def table(comparison: Comparison) -> Table:
    """Return a rich table: one row a model, under every cost its multiple of the baseline's."""
    result = _frame(
        f"{len(comparison.entries)} models on {comparison.settings['data']['name']}",
        _caption(comparison),
        ("accuracy %", "params", "MACs", "moved", "memory", "latency"),
    )
    for entry in comparison.entries:
        is_baseline = entry.model == comparison.baseline
        result.add_row(*_cells(comparison, entry), style="bold" if is_baseline else None)
    return result


def _frame(title: str, caption: str, headings: Iterable[str]) -> Table:
    """Return a table of models without rows."""
    frame = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    frame.add_column("model", no_wrap=True)
    for heading in headings:
        frame.add_column(heading, justify="right", no_wrap=True)
    return frame


def engine_table(comparison: Comparison) -> Table:
    """Return a rich table of the times in engines: one row a model, under each time its multiple of the baseline's."""
    latency = next(iter(comparison.entries[0].engines.values()))
    result = _frame(
        "Latency, folded for inference",
        f"×: against {comparison.baseline} in the same engine.  The networks as trained with the first seed, "
        f"batch of {latency.batch}, median of {latency.rounds} interleaved rounds on cpu, {_threads(latency)}.",
        comparison.engines,
    )
    for entry in comparison.entries:
        is_baseline = entry.model == comparison.baseline
        cells = [
            units.duration(entry.engines[engine].median_s)
            + ("" if is_baseline else f"\n{comparison.engine_ratio(entry, engine).median:.2f}×")
            for engine in comparison.engines
        ]
        name = f"{entry.model}\n(baseline)" if is_baseline else entry.model
        result.add_row(name, *cells, style="bold" if is_baseline else None)
    return result


def _threads(latency: Latency) -> str:
    return f"{latency.threads} thread{'s' if latency.threads != 1 else ''}"


def _caption(comparison: Comparison) -> str:
    latency = comparison.entries[0].latency
    seeds = len(comparison.seeds)
    spread = max(_half_spread(entry) for entry in comparison.entries)
    accuracy = f"mean ± sd of {seeds} seeds" if seeds > 1 else "one seed"
    return (
        f"× and + or -: against {comparison.baseline}.  Accuracy: test images after the last epoch, {accuracy}.  "
        f"Costs: one forward pass, batch of {latency.batch}, {latency.dtype}.  Moved: bytes read and written.  Memory: "
        f"peak.  Latency: median of {latency.rounds} interleaved rounds on {latency.device}, "
        f"{_threads(latency)}, quartiles within ±{spread:.0f} %."
    )


def _cells(comparison: Comparison, entry: Entry) -> list[str]:
    is_baseline = entry.model == comparison.baseline

    def cost(name: str, text: str) -> str:
        return text if is_baseline else f"{text}\n{comparison.ratio(entry, name):.2f}×"

    accuracy = units.percent(entry.accuracy, entry.accuracy_sd).removesuffix(" %")
    difference = f"{100 * comparison.difference(entry).mean:+.2f}"
    return [
        f"{entry.model}\n(baseline)" if is_baseline else entry.model,
        accuracy if is_baseline else f"{accuracy}\n{difference}",
        cost("params", units.count(entry.params)),
        cost("macs", units.count(entry.macs)),
        cost("bytes_moved", units.memory(entry.bytes_moved)),
        cost("peak_memory", units.memory(entry.peak_memory)),
        cost("latency_s", units.duration(entry.latency_s)),
    ]


def _half_spread(entry: Entry) -> float:
    """Return half the distance of the quartiles in per cent of the median."""
    latency = entry.latency
    return 50 * (latency.q75_s - latency.q25_s) / latency.median_s
