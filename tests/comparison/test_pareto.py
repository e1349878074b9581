"""The Pareto front against its definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanconv.comparison.pareto import pareto_front

_POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(_POINTS)
def test_front_is_what_no_point_dominates(points):
    costs, gains = zip(*points, strict=True)

    def dominated(index):
        return any(
            costs[other] <= costs[index]
            and gains[other] >= gains[index]
            and (costs[other], gains[other]) != (costs[index], gains[index])
            for other in range(len(points))
        )

    front = pareto_front(costs, gains)
    assert sorted(front) == [index for index in range(len(points)) if not dominated(index)]
    assert [costs[index] for index in front] == sorted(costs[index] for index in front)


@pytest.mark.parametrize(("costs", "gains", "front"), [([3.0], [0.1], [0]), ([2.0, 1.0], [0.9, 0.8], [1, 0])])
def test_small_fronts(costs, gains, front):
    assert pareto_front(costs, gains) == front
