import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from leanconv.cp_decomposition import DIVERGING, compose, cp_decomposition, full_cp_rank, term_norms


def relative_error(tensor: Tensor, factors: list[Tensor]) -> float:
    return float((compose(factors) - tensor).norm() / tensor.norm())


def test_factors_compose_to_the_sum_of_outer_products() -> None:
    a, b, c = (torch.randn(2, n, 3, dtype=torch.float64) for n in (4, 5, 2))
    assert_close(compose([a, b, c]), torch.einsum("gir,gjr,gkr->gijk", a, b, c))
    expected = torch.stack(
        [torch.einsum("gi,gj,gk->gijk", a[..., r], b[..., r], c[..., r]).flatten(1).norm(dim=1) for r in range(3)], 1
    )
    assert_close(term_norms([a, b, c]), expected)


@settings(max_examples=60, deadline=None)
@given(modes=st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=3, max_size=5), batch=st.integers(1, 2))
def test_any_tensor_is_exact_at_full_rank(modes: list[int], batch: int) -> None:
    tensor = torch.randn(batch, *modes, dtype=torch.float64)
    factors = cp_decomposition(tensor, full_cp_rank(modes))
    assert [factor.shape for factor in factors] == [(batch, n, full_cp_rank(modes)) for n in modes]
    assert relative_error(tensor, factors) < 1e-12


@settings(max_examples=60, deadline=None)
@given(
    modes=st.lists(st.sampled_from([1, 2, 3, 5, 8]), min_size=3, max_size=5),
    rank=st.integers(1, 4),
    batch=st.integers(1, 2),
    seed=st.integers(0, 2**20),
)
def test_exact_decompositions_are_found(modes: list[int], rank: int, batch: int, seed: int) -> None:
    rank = min(rank, full_cp_rank(modes), sorted(modes)[-2])
    generator = torch.Generator().manual_seed(seed)
    truth = [torch.randn(batch, n, rank, generator=generator, dtype=torch.float64) for n in modes]
    tensor = compose(truth)
    assert relative_error(tensor, cp_decomposition(tensor, rank)) < 1e-7


def test_the_error_on_random_kernels_is_that_of_long_runs_from_random_starts() -> None:
    """tensorly-torch 0.5.0 leaves .9419 and .7632 of a random 64 -> 64 kernel of 3x3 at these ranks."""
    kernel = nn.Conv2d(64, 64, 3).weight.detach().double().unsqueeze(0)
    for rank, published in ((16, 0.943), (64, 0.7632)):
        factors = cp_decomposition(kernel, rank)
        assert relative_error(kernel, factors) < published
        assert term_norms(factors).norm() < DIVERGING * kernel.norm()


def test_terms_do_not_diverge_where_no_best_fit_exists() -> None:
    """The tensor a a b + a b a + b a a has rank 3 and is a limit of tensors of rank 2 whose terms grow forever."""
    a, b = torch.eye(4, dtype=torch.float64)[:2]
    tensor = sum(torch.einsum("i,j,k->ijk", *vectors) for vectors in ((a, a, b), (a, b, a), (b, a, a)))
    factors = cp_decomposition(tensor.unsqueeze(0), 2)
    assert term_norms(factors).norm() <= DIVERGING * tensor.norm()
    assert relative_error(tensor.unsqueeze(0), factors) < 0.3


def test_terms_share_their_norm_between_the_factors() -> None:
    factors = cp_decomposition(1e4 * torch.randn(1, 7, 6, 3, 3), 5)
    norms = torch.stack([factor.norm(dim=1) for factor in factors])
    assert_close(norms, norms[:1].expand_as(norms))


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    tensor = torch.randn(1, 8, 6, 3, 3)
    state = torch.get_rng_state()
    first, again = cp_decomposition(tensor, 10, seed=3), cp_decomposition(tensor, 10, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_zero_tensors_stay_zero_beside_others() -> None:
    tensor = torch.stack([torch.zeros(6, 5, 3, 3), torch.randn(6, 5, 3, 3)])
    factors = cp_decomposition(tensor, 4)
    assert all(factor.isfinite().all() for factor in factors)
    assert not compose(factors)[0].any()
    assert relative_error(tensor[1:], [factor[1:] for factor in factors]) < 1


def test_fit_is_as_close_as_that_of_tensorly() -> None:
    tensorly = pytest.importorskip("tensorly")
    decomposition = pytest.importorskip("tensorly.decomposition")
    kernel = torch.randn(1, 20, 16, 3, 3, dtype=torch.float64)
    tensorly.set_backend("numpy")
    theirs = decomposition.parafac(
        kernel[0].numpy(), 12, n_iter_max=200, init="random", random_state=0, normalize_factors=False
    )
    error = math.sqrt(((tensorly.cp_to_tensor(theirs) - kernel[0].numpy()) ** 2).sum()) / float(kernel.norm())
    assert relative_error(kernel, cp_decomposition(kernel, 12)) < error + 0.005
