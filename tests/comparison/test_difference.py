"""The difference of means against scipy's own Welch test."""

import pytest
from scipy.stats import ttest_ind

from leanconv.comparison.difference import mean_difference


def test_agrees_with_scipy_welch_interval():
    values, baseline = [0.91, 0.93, 0.92, 0.95], [0.90, 0.89, 0.905]
    interval = ttest_ind(values, baseline, equal_var=False).confidence_interval(0.95)
    difference = mean_difference(values, baseline)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
    assert difference.low < difference.mean < difference.high


def test_one_value_has_no_interval():
    difference = mean_difference([0.9], [0.8, 0.85])
    assert difference.mean == pytest.approx(0.075)
    assert difference.low is None
    assert difference.high is None


def test_equal_values_have_a_point_interval():
    assert mean_difference([0.5, 0.5], [0.25, 0.25]).low == 0.25
