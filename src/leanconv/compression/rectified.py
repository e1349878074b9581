"""Fit a pointwise mix to what remains of its target after a ReLU.

Zhang et al., 2015, arXiv 1505.06798, section 3.2, with the penalties and iterations of the code released with channel
pruning (He et al., 2017, arXiv 1707.06168).  Variant F of depth-wise decomposition.
"""

import torch
from torch import Tensor

from leanconv.compression.least_squares import solve_normal_equations

#: Penalty of the auxiliary target and iterations with it, in this order.
PENALTIES = ((0.1, 30), (1.0, 20))


def refit_mix_before_relu(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise ``|relu(Y) - relu(Z M + b)|²`` over mix ``M`` and bias ``b``.

    An auxiliary target ``U`` stands in for the prediction ``V = Z M + b``: minimise ``|relu(Y) - relu(U)|² + penalty *
    |U - V|²`` in turns, ``M`` and ``b`` by least squares, ``U`` element by element in closed form (the better one of a
    value below and a value above zero).

    Args:
        inputs: ``Z``, samples of what is mixed, ``(N, p)``.
        targets: ``Y``, what the mix should be, bias included, ``(N, q)``.

    Returns:
        Mix ``(p, q)`` and bias ``(q,)``, in float64.
    """
    inputs, targets = inputs.double(), targets.double()
    wanted = targets.clamp_min(0)
    mean = inputs.mean(0)
    centred = inputs - mean
    gram = centred.mT @ centred

    def fit(auxiliary: Tensor) -> tuple[Tensor, Tensor]:
        mix = solve_normal_equations(gram, centred.mT @ auxiliary)
        return mix, auxiliary.mean(0) - mean @ mix

    mix, bias = fit(targets)
    for penalty, iterations in PENALTIES:
        for _ in range(iterations):
            predicted = inputs @ mix + bias
            below = predicted.clamp_max(0)
            above = ((penalty * predicted + wanted) / (penalty + 1)).clamp_min(0)
            cost_below = wanted.square() + penalty * (below - predicted).square()
            cost_above = (above - wanted).square() + penalty * (above - predicted).square()
            mix, bias = fit(torch.where(cost_below < cost_above, below, above))
    return mix, bias
