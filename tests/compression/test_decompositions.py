"""The pure decompositions against their definitions, each other and the published synthetic table."""

import pytest
import torch
from synthetic import correlated_layer, moments, relative_error
from torch import Tensor
from torch.testing import assert_close

from leanconv.compression.channels import channels_from_moments, channels_from_weight
from leanconv.compression.decoupling import decouple_pointwise_first, energy_rank
from leanconv.compression.depthwise import (
    compose_depthwise,
    depthwise_from_moments,
    depthwise_from_response,
    depthwise_from_weight,
    refit_filters,
    refit_mix,
)
from leanconv.compression.least_squares import solve_normal_equations, square_error, square_roots
from leanconv.compression.rectified import refit_mix_before_relu

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(scope="module")
def layer() -> tuple[Tensor, Tensor, Tensor]:
    """Weights (q, c, K), centred patches (N, c K) and their responses (N, q) of a small correlated layer."""
    return correlated_layer(channels=6, samples=600, outputs=11)


def kernel_of(weight: Tensor) -> Tensor:
    return weight.flatten(-2).mT


def test_normal_equations_give_the_shortest_solution_of_singular_problems() -> None:
    x = torch.randn(20, 6, dtype=torch.float64) * torch.logspace(0, 6, 6)
    x = torch.cat((x, x[:, :2]), 1)
    y = torch.randn(20, 3, dtype=torch.float64)
    found = solve_normal_equations(x.mT @ x, x.mT @ y)
    assert_close(x @ found, x @ torch.linalg.lstsq(x, y, driver="gelsd").solution, rtol=1e-7, atol=1e-7)
    assert torch.count_nonzero(solve_normal_equations(torch.zeros(2, 2).double(), torch.ones(2, 1).double())) == 0


def test_square_roots_multiply_to_the_matrix_and_a_projection() -> None:
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    matrix = x.mT @ x  # of rank 4
    root, inverse = square_roots(matrix)
    assert_close(root @ root, matrix, **EXACT)
    assert_close(root @ inverse @ x.mT, x.mT, **EXACT)


def test_every_decomposition_is_exact_at_full_rank(layer: tuple[Tensor, Tensor, Tensor]) -> None:
    weight, x, y = layer
    gram, cross, _ = moments(x, y)
    kernel = kernel_of(weight)
    for filters, mix in (
        depthwise_from_weight(weight, 9),
        depthwise_from_response(weight, gram, 9),
        depthwise_from_moments(gram, cross, weight, 9),
    ):
        assert_close(compose_depthwise(filters, mix), kernel, rtol=1e-7, atol=1e-7)
    for first, mix in (channels_from_weight(weight, 11), channels_from_moments(gram, cross, 11)):
        assert_close(first @ mix, kernel, rtol=1e-7, atol=1e-7)
    pointwise, depthwise = decouple_pointwise_first(weight, 6)
    assert_close(torch.einsum("orc,ork->ock", pointwise, depthwise), weight, **EXACT)


def test_weight_fit_is_the_response_fit_of_white_inputs(layer: tuple[Tensor, Tensor, Tensor]) -> None:
    weight = layer[0]
    white = torch.eye(weight[0].numel(), dtype=torch.float64)
    by_weight = compose_depthwise(*depthwise_from_weight(weight, 2))
    assert_close(by_weight, compose_depthwise(*depthwise_from_response(weight, white, 2)), **EXACT)
    joint = depthwise_from_moments(white, kernel_of(weight), weight, 2)
    assert_close(by_weight, compose_depthwise(*joint), **EXACT)


def test_response_fit_is_the_truncated_svd_of_each_channels_response(layer: tuple[Tensor, Tensor, Tensor]) -> None:
    weight, x, _ = layer
    fitted = compose_depthwise(*depthwise_from_response(weight, x.mT @ x, 3)).unflatten(0, (6, 9))
    for channel, patches in enumerate(x.unflatten(1, (6, 9)).unbind(1)):
        response = patches @ weight[:, channel].mT
        u, s, vh = torch.linalg.svd(response, full_matrices=False)
        assert_close(patches @ fitted[channel], (u[:, :3] * s[:3]) @ vh[:3], rtol=1e-7, atol=1e-7)


def test_compensation_follows_the_residuals_channel_after_channel(layer: tuple[Tensor, Tensor, Tensor]) -> None:
    # The paper's loop on samples: each channel's target carries the error of those before it.
    weight, x, y = layer
    patches = x.unflatten(1, (6, 9)).unbind(1)
    carried = y - sum(p @ weight[:, i].mT for i, p in enumerate(patches))
    expected = []
    for channel, p in enumerate(patches):
        target = p @ weight[:, channel].mT + carried
        best = torch.linalg.lstsq(p, target, driver="gelsd").solution
        v = torch.linalg.svd(p @ best, full_matrices=False).Vh[:2]
        expected.append(best @ v.mT @ v)
        carried = target - p @ expected[-1]
    gram, cross, _ = moments(x, y)
    assert_close(
        compose_depthwise(*depthwise_from_moments(gram, cross, weight, 2)), torch.cat(expected), rtol=1e-6, atol=1e-6
    )


def test_each_improvement_lowers_the_error(layer: tuple[Tensor, Tensor, Tensor]) -> None:
    weight, x, y = layer
    gram, cross, energy = moments(x, y)

    def error(filters: Tensor, mix: Tensor) -> float:
        return float(square_error(gram, cross, energy, compose_depthwise(filters, mix)))

    fits = [
        depthwise_from_weight(weight, 2),
        depthwise_from_response(weight, gram, 2),
        depthwise_from_moments(gram, cross, weight, 2),
        depthwise_from_moments(gram, cross, weight, 2, sweeps=4),
    ]
    filters = fits[-1][0]
    fits.append((filters, refit_mix(gram, cross, filters)))
    for _ in range(2):
        filters = refit_filters(gram, cross, filters, fits[-1][1])
        fits.append((filters, fits[-1][1]))
        fits.append((filters, refit_mix(gram, cross, filters)))
    errors = [error(*fit) for fit in fits]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[2]


def test_refits_solve_their_least_squares_problems(layer: tuple[Tensor, Tensor, Tensor]) -> None:
    weight, x, y = layer
    gram, cross, _ = moments(x, y)
    filters, _ = depthwise_from_weight(weight, 2)
    filtered = torch.einsum("nck,cmk->ncm", x.unflatten(1, (6, 9)), filters).flatten(1)
    mix = refit_mix(gram, cross, filters)
    assert_close(mix.flatten(1).mT, torch.linalg.lstsq(filtered, y).solution, rtol=1e-7, atol=1e-7)
    # Enough steps of conjugate gradients reach the least-squares filters; the problem is linear in them.
    design = torch.einsum("nck,ocm->nocmk", x.unflatten(1, (6, 9)), mix).flatten(2).flatten(0, 1)
    best = torch.linalg.lstsq(design, y.flatten(), driver="gelsd").solution.view_as(filters)
    found = refit_filters(gram, cross, filters, mix, steps=300)
    assert_close(compose_depthwise(found, mix), compose_depthwise(best, mix), rtol=1e-5, atol=1e-5)


def test_groups_are_problems_of_their_own(layer: tuple[Tensor, Tensor, Tensor]) -> None:
    weight, x, y = layer
    other = torch.randn_like(weight)
    other_y = x @ kernel_of(other)
    gram, cross, _ = (torch.stack(pair) for pair in zip(moments(x, y), moments(x, other_y), strict=True))
    filters, mix = depthwise_from_moments(gram, cross, torch.stack((weight, other)), 2, sweeps=2)
    mix = refit_mix(gram, cross, refit_filters(gram, cross, filters, mix))
    alone, alone_mix = depthwise_from_moments(gram[1], cross[1], other, 2, sweeps=2)
    alone_mix = refit_mix(gram[1], cross[1], refit_filters(gram[1], cross[1], alone, alone_mix))
    assert_close(compose_depthwise(filters, mix)[1], compose_depthwise(alone, alone_mix), rtol=1e-7, atol=1e-7)


def test_reduced_rank_regression_is_the_best_fit_of_its_rank(layer: tuple[Tensor, Tensor, Tensor]) -> None:
    _, x, y = layer
    noisy = y + 0.3 * torch.randn_like(y)
    first, mix = channels_from_moments(x.mT @ x, x.mT @ noisy, 4)
    predicted = x @ torch.linalg.lstsq(x, noisy).solution
    u, s, vh = torch.linalg.svd(predicted, full_matrices=False)
    assert_close(x @ first @ mix, (u[:, :4] * s[:4]) @ vh[:4], rtol=1e-7, atol=1e-7)


def test_relu_aware_mix_beats_least_squares_after_the_relu() -> None:
    z = torch.randn(800, 5, dtype=torch.float64)
    y = torch.cat((z, z.square()), 1) @ torch.randn(10, 4, dtype=torch.float64) - 0.5
    mix, bias = refit_mix_before_relu(z, y)
    ones = torch.cat((z, torch.ones(800, 1)), 1)
    linear = ones @ torch.linalg.lstsq(ones, y).solution

    def loss(predicted: Tensor) -> float:
        return float((predicted.clamp_min(0) - y.clamp_min(0)).square().mean())

    assert loss(z @ mix + bias) < 0.9 * loss(linear)


def test_energy_rank_is_the_first_that_keeps_the_share() -> None:
    matrices = torch.diag(torch.tensor([3.0, 2.0, 1.0])).expand(4, 3, 3)  # energies 9, 4, 1 of 14
    assert [energy_rank(matrices, share) for share in (0.5, 9 / 14, 0.7, 13 / 14, 0.95, 1.0)] == [1, 1, 2, 2, 3, 3]


# Held-out relative errors to stay below: those of one sweep and one refit on other data, correlated in the same ways.
@pytest.mark.parametrize(
    ("rectified", "channels", "bars"),
    [
        (False, 16, (0.537, 0.346, 0.221)),
        (True, 16, (0.608, 0.440, 0.333)),
    ],
)
def test_synthetic_layers(rectified: bool, channels: int, bars: tuple[float, ...]) -> None:
    weight, x, y = correlated_layer(channels=channels, samples=2 * 3528, outputs=channels, rectified=rectified)
    half = len(x) // 2
    gram, cross, _ = moments(x[:half], y[:half])
    for multiplier, bar in enumerate(bars, start=1):
        filters, mix = depthwise_from_moments(gram, cross, weight, multiplier, sweeps=3)
        for _ in range(3):
            mix = refit_mix(gram, cross, filters)
            filters = refit_filters(gram, cross, filters, mix)
        kernel = compose_depthwise(filters, refit_mix(gram, cross, filters))
        assert relative_error(x[half:], y[half:], kernel) <= bar
