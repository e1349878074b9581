import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from leanconv.ops import TensorTrainConv2d, TensorTrainConv3d


def cut_errors(weight: torch.Tensor, rank: tuple[int, ...]) -> list[torch.Tensor]:
    """Squared error of the best kernel with the given rank at one cut and any rank at the others."""
    train = weight.movedim(0, -1)
    sizes = itertools.accumulate(train.shape[:-1], lambda a, b: a * b)
    return [
        torch.linalg.svdvals(train.reshape(size, -1))[r:].square().sum() for size, r in zip(sizes, rank, strict=True)
    ]


def test_kernel_is_the_product_of_the_factors() -> None:
    op = TensorTrainConv3d(5, 6, (3, 2, 4), rank=(2, 3, 4, 5)).double()
    ins, depth, height, width, outs = (conv.weight.flatten(2).squeeze(2) for conv in op.convs)
    kernel = torch.einsum("an,bai,cbj,dck,td->tnijk", ins, depth, height, width, outs)
    x = torch.randn(2, 5, 4, 5, 6, dtype=torch.float64)
    assert_close(op(x), F.conv3d(x, kernel, op.convs[-1].bias))


@pytest.mark.parametrize("rank", [(3, 4, 5), (8, 6, 4), (2, 2, 10)])
def test_error_lies_between_that_of_one_cut_and_that_of_all(rank: tuple[int, ...]) -> None:
    """Oseledets (2011), theorem 2.2."""
    conv = nn.Conv2d(8, 10, 3, bias=False, dtype=torch.float64)
    op = TensorTrainConv2d.from_dense(conv, rank=rank)
    assert op.rank == rank
    error = (op.dense().weight - conv.weight).norm()
    errors = cut_errors(conv.weight, rank)
    assert max(errors).sqrt() * (1 - 1e-9) <= error <= sum(errors).sqrt()


def test_ends_at_full_rank_have_no_pointwise_factor() -> None:
    op = TensorTrainConv2d(8, 10, 3, rank=(8, 6, 10), bias=False)
    assert [tuple(conv.weight.shape) for conv in op.convs] == [(6, 8, 3, 1), (10, 6, 1, 3)]
    one = TensorTrainConv2d(8, 10, 3, rank=(8, 6, 4))
    assert [tuple(conv.weight.shape) for conv in one.convs] == [(6, 8, 3, 1), (4, 6, 1, 3), (10, 4, 1, 1)]


def test_ranks_are_clamped_to_what_a_kernel_can_need() -> None:
    """64 -> 128 channels, 3x3: inputs give at most 64, a cut in the middle 192, outputs 128."""
    assert TensorTrainConv2d(64, 128, 3, rank=(95, 500, 185)).rank == (64, 192, 128)


def test_fit_is_as_close_as_that_of_tensorly() -> None:
    tensorly = pytest.importorskip("tensorly")
    decomposition = pytest.importorskip("tensorly.decomposition")
    conv = nn.Conv2d(12, 10, 3, bias=False, dtype=torch.float64)
    tensorly.set_backend("numpy")
    theirs = decomposition.tensor_train(conv.weight.detach().permute(1, 2, 3, 0).numpy(), (1, 5, 7, 4, 1))
    kernel = torch.as_tensor(theirs.to_tensor()).permute(3, 0, 1, 2)
    op = TensorTrainConv2d.from_dense(conv, rank=(5, 7, 4))
    assert_close(op.dense().weight, kernel, rtol=1e-8, atol=1e-8)
