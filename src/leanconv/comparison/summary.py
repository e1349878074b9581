"""What a comparison found, in sentences."""

from leanconv.comparison.record import Comparison, Entry


def sentences(comparison: Comparison) -> list[str]:
    """Return one plain sentence for every model but the baseline."""
    return [sentence(comparison, entry) for entry in comparison.entries if entry.model != comparison.baseline]


def sentence(comparison: Comparison, entry: Entry) -> str:
    """Return what ``entry`` costs and how accurate it is, against the baseline."""
    costs = (
        f"{comparison.ratio(entry, 'params'):.2f}× the parameters, "
        f"{comparison.ratio(entry, 'macs'):.2f}× the multiply-accumulates and "
        f"{comparison.ratio(entry, 'latency_s'):.2f}× the latency of {comparison.baseline}"
    )
    return f"{entry.model} has {costs}; {accuracy_clause(comparison, entry)}.{_engines(comparison, entry)}"


def _engines(comparison: Comparison, entry: Entry) -> str:
    """Return a sentence on the times in engines, if there are any."""
    if not comparison.engines:
        return ""
    ratios = [f"{comparison.engine_ratio(entry, name).median:.2f}× in {name}" for name in comparison.engines]
    return f" Folded for inference it takes {', '.join(ratios)}."


def accuracy_clause(comparison: Comparison, entry: Entry) -> str:
    """Return how the accuracies differ and whether the difference is larger than chance."""
    difference = comparison.difference(entry)
    points = 100 * difference.mean
    which = "more" if points > 0 else "less"
    said = f"it is {abs(points):.2f} percentage points {which} accurate"
    if difference.low is None or difference.high is None:
        return f"{said}, from one seed, so the uncertainty is unknown"
    interval = f"95 % interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
    if difference.low <= 0 <= difference.high:
        return f"{said} ({interval}: no clear difference)"
    return f"{said} ({interval})"
