import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import TuckerConv2d, TuckerConv3d


def relative_error(op: nn.Module, conv: nn.Conv2d) -> float:
    return float((op.dense().weight - conv.weight).detach().norm() / conv.weight.detach().norm())


def test_kernel_is_the_core_times_a_factor_for_each_mode() -> None:
    op = TuckerConv3d(4, 6, (3, 4, 2), rank=(3, 2, 2, 3, 1)).double()
    ins, depth, height, width, core, outs = (conv.weight for conv in op.convolutions())
    core = core.reshape(2, 3, 2, 3, 1)
    factors = (w.flatten(1) for w in (outs, ins, depth, height, width))
    kernel = torch.einsum("osabc,to,sn,ai,bj,ck->tnijk", core, *factors)
    x = torch.randn(2, 4, 5, 6, 3, dtype=torch.float64)
    assert_close(op(x), F.conv3d(x, kernel, op.convs[-1].bias))


@pytest.mark.parametrize("rank", [16, 10**6])
def test_one_number_never_touches_the_spatial_modes(rank: int) -> None:
    """A kernel of 3x3 has no 16 directions: ranks above a mode must be neither used nor answered with garbage."""
    conv = nn.Conv2d(64, 64, 3, bias=False)
    op = TuckerConv2d.from_dense(conv, rank=rank)
    assert op.rank == (min(rank, 64), min(rank, 64), 3, 3)
    assert relative_error(op, conv) < (0.895 if rank == 16 else 1e-6)


def test_whole_modes_have_no_factor() -> None:
    op = TuckerConv2d(3, 32, 3, rank=8)
    assert [tuple(conv.weight.shape) for conv in op.convs] == [(8, 3, 3, 3), (32, 8, 1, 1)]
    assert len(TuckerConv2d(3, 4, 3, rank=8).convs) == 1


@pytest.mark.parametrize(("rank", "published"), [(16, 0.8932), (32, 0.7318), (48, 0.5099)])
def test_error_on_random_kernels_is_that_of_twenty_rounds_of_orthogonal_iteration(rank: int, published: float) -> None:
    """tensorly-torch 0.5.0, told to keep the spatial modes, leaves these errors of a random 64 -> 64 kernel of 3x3."""
    conv = nn.Conv2d(64, 64, 3, bias=False)
    assert relative_error(TuckerConv2d.from_dense(conv, rank=rank), conv) < published + 0.002


def test_fit_is_as_close_as_that_of_tensorly() -> None:
    tensorly = pytest.importorskip("tensorly")
    decomposition = pytest.importorskip("tensorly.decomposition")
    conv = nn.Conv2d(20, 16, 3, bias=False, dtype=torch.float64)
    tensorly.set_backend("numpy")
    theirs = decomposition.tucker(conv.weight.detach().numpy(), (6, 8, 2, 3), n_iter_max=50, tol=1e-8)
    kernel = torch.as_tensor(tensorly.tucker_to_tensor(theirs))
    error = float((kernel - conv.weight).detach().norm() / conv.weight.detach().norm())
    assert relative_error(TuckerConv2d.from_dense(conv, rank=(8, 6, 2, 3)), conv) < error + 2e-3


def test_factors_of_a_fit_are_orthonormal() -> None:
    op = TuckerConv2d.from_dense(nn.Conv2d(16, 12, 3, dtype=torch.float64), rank=(5, 4, 2, 3))
    ins, height, _, outs = (conv.weight.flatten(1) for conv in op.convolutions())
    for factor in (ins, height, outs.T):
        assert_close(factor @ factor.T, torch.eye(len(factor), dtype=torch.float64))


def test_groups_share_the_factors_of_axes_only() -> None:
    op = TuckerConv2d(8, 12, 3, groups=2, rank=(2, 3, 2, 3))
    shapes = [tuple(conv.weight.shape) for conv in op.convolutions()]
    assert shapes == [(4, 4, 1, 1), (2, 1, 3, 1), (6, 4, 1, 3), (12, 3, 1, 1)]


def test_a_tiny_tail_of_the_spectrum_is_kept_where_the_rank_allows() -> None:
    weight = torch.randn(32, 32, 3, 3, dtype=torch.float64) * torch.logspace(0, -12, 32).double().view(32, 1, 1, 1)
    conv = nn.Conv2d(32, 32, 3, bias=False, dtype=torch.float64)
    conv.weight.data.copy_(weight)
    op = TuckerConv2d.from_dense(conv, rank=(32, 31))
    assert relative_error(op, conv) < 1e-11


def test_wide_layers_lose_as_much_as_narrow_ones() -> None:
    """The error of random kernels depends on the ratio of ranks to channels; here 256 x 2304 take the Gram route."""
    conv = nn.Conv2d(256, 256, 3, bias=False)
    op = TuckerConv2d.from_dense(conv, rank=64)
    assert math.isclose(relative_error(op, conv), 0.893, abs_tol=0.004)


def test_ranks_of_some_axes_only_are_refused() -> None:
    with pytest.raises(UserError, match="`rank`"):
        TuckerConv2d(4, 4, 3, rank=(2, 2, 2))
    with pytest.raises(UserError, match=r"`axis` 1 .* whole"):
        TuckerConv2d(4, 4, 3, rank=(2, 2, 2, 3)).axis_conv(1)
