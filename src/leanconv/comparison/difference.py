"""The difference of two means and how far it can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """A difference of two means with its 95 % confidence interval.

    Attributes:
        mean: The difference.
        low: Lower end of the interval; None when a side has fewer than two values.
        high: Upper end of the interval; None when a side has fewer than two values.
    """

    mean: float
    low: float | None
    high: float | None


def mean_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Return the mean of ``values`` minus the mean of ``baseline`` with Welch's confidence interval.

    The two sides may have different variances and numbers of values; degrees of freedom after Satterthwaite.

    Args:
        values: Independent results, at least one.
        baseline: Independent results of what they are compared with, at least one.
    """
    difference = fmean(values) - fmean(baseline)
    if min(len(values), len(baseline)) < 2:
        return Difference(difference, None, None)
    errors = [variance(side) / len(side) for side in (values, baseline)]
    total = sum(errors)
    if total == 0:
        return Difference(difference, difference, difference)

    from scipy.stats import t

    sizes = (len(values), len(baseline))
    freedom = total**2 / sum(error**2 / (size - 1) for error, size in zip(errors, sizes, strict=True))
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * sqrt(total)
    return Difference(difference, difference - half, difference + half)
