"""The comparison as a table for the terminal."""

from rich.table import Table

from leanconv.comparison import units
from leanconv.comparison.record import Comparison, Entry


def table(comparison: Comparison) -> Table:
    """Return a rich table: one row a model, every cost with its multiple of the baseline's."""
    data = comparison.settings["data"]["name"]
    seeds = len(comparison.seeds)
    latency = comparison.entries[0].latency
    result = Table(
        title=f"{len(comparison.entries)} models on {data}",
        caption=(
            f"Accuracy: test images after the last epoch, {seeds} seed{'s' if seeds != 1 else ''}. "
            f"Costs: batch of {latency.batch}, {latency.dtype}; latency: median of {latency.rounds} interleaved "
            f"rounds on {latency.device}, {latency.threads} thread{'s' if latency.threads != 1 else ''}. "
            f"×: multiple of {comparison.baseline}."
        ),
        title_justify="left",
        caption_justify="left",
    )
    result.add_column("model", no_wrap=True)
    for heading in ("accuracy", "params", "MACs", "bytes moved", "peak memory", "latency"):
        result.add_column(heading, justify="right")
    for entry in comparison.entries:
        is_baseline = entry.model == comparison.baseline
        result.add_row(*_cells(comparison, entry), style="bold" if is_baseline else None)
    return result


def _cells(comparison: Comparison, entry: Entry) -> list[str]:
    def cost(name: str, text: str) -> str:
        return text if entry.model == comparison.baseline else f"{text}\n{comparison.ratio(entry, name):.2f}×"

    difference = comparison.difference(entry)
    accuracy = units.percent(entry.accuracy, entry.accuracy_sd)
    if entry.model != comparison.baseline:
        accuracy += f"\n{100 * difference.mean:+.2f} points"
    latency = entry.latency
    return [
        entry.model + ("\nbaseline" if entry.model == comparison.baseline else ""),
        accuracy,
        cost("params", units.count(entry.params)),
        cost("macs", units.count(entry.macs)),
        cost("bytes_moved", units.memory(entry.bytes_moved)),
        cost("peak_memory", units.memory(entry.peak_memory)),
        cost("latency_s", f"{units.duration(latency.median_s)} ±{_half_spread(entry):.0f} %"),
    ]


def _half_spread(entry: Entry) -> float:
    """Return half the distance of the quartiles in per cent of the median."""
    latency = entry.latency
    return 50 * (latency.q75_s - latency.q25_s) / latency.median_s
