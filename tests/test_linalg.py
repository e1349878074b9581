import itertools

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from leanconv.linalg import GRAM_SIDE, full_ranks, tensor_train, truncated_svd


def matrix_with(singular_values: Tensor, rows: int, columns: int) -> Tensor:
    count = len(singular_values)
    u, _ = torch.linalg.qr(torch.randn(rows, count, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(columns, count, dtype=torch.float64))
    return u * singular_values @ v.T


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (GRAM_SIDE, 300), (300, GRAM_SIDE), (3, GRAM_SIDE, 200)])
@pytest.mark.parametrize("rank", [1, 4, 50])
def test_triplets_are_the_leading_ones(shape: tuple[int, ...], rank: int) -> None:
    matrix = torch.randn(shape)
    u, s, vh = truncated_svd(matrix, rank)
    kept = min(rank, *shape[-2:])
    assert (u.dtype, u.shape[-1], s.shape[-1], vh.shape[-2]) == (torch.float64, rank, rank, rank)
    expected = torch.linalg.svdvals(matrix.double())
    assert_close(s[..., :kept], expected[..., :kept], rtol=1e-12, atol=1e-12)
    assert_close((u * s.unsqueeze(-2) @ vh - matrix).norm(), expected[..., kept:].norm(), rtol=1e-12, atol=1e-12)
    eye = torch.eye(kept, dtype=torch.float64).expand(*shape[:-2], kept, kept)
    assert_close((u.mT @ u)[..., :kept, :kept], eye, rtol=0, atol=1e-12)
    assert_close((vh @ vh.mT)[..., :kept, :kept], eye, rtol=0, atol=1e-12)
    assert not s[..., kept:].any()


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("decades", [3, 6, 9, 14])
@pytest.mark.parametrize("rank", [10, 90, 128])
def test_gram_route_misses_the_best_fit_only_far_below_the_largest_singular_value(
    wide: bool, decades: int, rank: int
) -> None:
    spectrum = torch.logspace(0, -decades, 128, dtype=torch.float64)
    matrix = matrix_with(spectrum, 128, 700)
    matrix = matrix if wide else matrix.T
    u, s, vh = truncated_svd(matrix, rank)
    reachable = spectrum[:rank] > 1e-7
    assert_close(s[reachable], spectrum[:rank][reachable], rtol=0, atol=1e-13)
    excess = (matrix - u * s @ vh).norm() - spectrum[rank:].norm()
    assert excess < (1e-13 if rank == 128 or decades <= 6 else 1e-7)


def test_gram_route_recovers_an_exact_low_rank() -> None:
    matrix = matrix_with(torch.logspace(0, -6, 20, dtype=torch.float64), 100, 400)
    u, s, vh = truncated_svd(matrix, 20)
    assert_close(u * s @ vh, matrix, rtol=0, atol=1e-13)
    padded = truncated_svd(matrix, 30)
    assert_close(padded[0] * padded[1] @ padded[2], matrix, rtol=0, atol=1e-13)


def contract(factors: list[Tensor]) -> Tensor:
    product = factors[0]
    for factor in factors[1:]:
        product = torch.einsum("g...r,grns->g...ns", product, factor)
    return product.squeeze(-1).squeeze(1)


@pytest.mark.parametrize("modes", [(6,), (4, 5), (3, 2, 6), (2, 3, 3, 4)])
def test_tensor_train_is_exact_at_full_ranks_and_beyond(modes: tuple[int, ...]) -> None:
    tensor = torch.randn(2, *modes, dtype=torch.float64)
    for more in (0, 3):
        ranks = [rank + more for rank in full_ranks(modes)]
        factors = tensor_train(tensor, ranks)
        assert [factor.shape for factor in factors] == [
            (2, before, mode, after)
            for mode, (before, after) in zip(modes, itertools.pairwise([1, *ranks, 1]), strict=True)
        ]
        assert_close(contract(factors), tensor, rtol=1e-11, atol=1e-11)


def test_tensor_train_error_stays_below_that_of_the_cuts_together() -> None:
    """Oseledets (2011), theorem 2.2: the squared error is at most the sum of the squared errors of the single cuts."""
    modes, ranks = (6, 5, 5, 7), (3, 4, 2)
    tensor = torch.randn(1, *modes, dtype=torch.float64)
    error = (contract(tensor_train(tensor, ranks)) - tensor).norm()
    cuts = [
        torch.linalg.svdvals(tensor.reshape(torch.Size(modes[: j + 1]).numel(), -1))[rank:].square().sum()
        for j, rank in enumerate(ranks)
    ]
    assert max(cuts).sqrt() <= error <= sum(cuts).sqrt()


def test_tensor_train_shares_the_norm_between_its_factors() -> None:
    tensor = torch.randn(1, 6, 5, 7, dtype=torch.float64)
    first, middle, last = tensor_train(1e6 * tensor, full_ranks((6, 5, 7)))
    singular = torch.linalg.svdvals(1e6 * tensor.reshape(6, 35))
    assert_close(first.square().sum((0, 1, 2)), singular)
    assert middle.abs().max() <= 1 + 1e-9
    assert_close(last.square().sum((0, 2, 3)), torch.linalg.svdvals(1e6 * tensor.reshape(30, 7)))
