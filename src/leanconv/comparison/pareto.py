"""Which of several models no other model beats."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Return the indices of the points that no other point dominates, from the cheapest on.

    A point dominates another when its cost is no higher and its gain no lower, and one of the two is better.

    Args:
        costs: What is to be small, one a point.
        gains: What is to be large, one a point.

    Example:
        >>> pareto_front([1.0, 2.0, 3.0], [0.8, 0.7, 0.9])
        [0, 2]
    """
    order = sorted(range(len(costs)), key=lambda index: (costs[index], -gains[index]))
    front: list[int] = []
    for index in order:
        best = front[-1] if front else None
        if best is None or gains[index] > gains[best] or (costs[index], gains[index]) == (costs[best], gains[best]):
            front.append(index)
    return front
