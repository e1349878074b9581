import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from leanconv.ops import CPConv2d, CPConv3d


def test_kernel_is_the_sum_of_rank_one_terms() -> None:
    op = CPConv3d(4, 6, (3, 2, 1), rank=5).double()
    ins, depth, height, width, outs = (conv.weight.flatten(1) for conv in op.convs)
    kernel = torch.einsum("tr,rc,ri,rj,rk->tcijk", outs, ins, depth, height, width)
    x = torch.randn(2, 4, 5, 4, 3, dtype=torch.float64)
    assert_close(op(x), F.conv3d(x, kernel, op.convs[-1].bias))


def test_each_axis_carries_its_own_stride_padding_and_dilation() -> None:
    op = CPConv2d(4, 6, (3, 5), (2, 1), (1, 4), (1, 2), rank=3)
    assert [conv.stride for conv in op.convs] == [(1, 1), (2, 1), (1, 1), (1, 1)]
    assert [conv.padding for conv in op.convs] == [(0, 0), (1, 0), (0, 4), (0, 0)]
    assert [conv.dilation for conv in op.convs] == [(1, 1), (1, 1), (1, 2), (1, 1)]


def test_inference_takes_one_depthwise_convolution() -> None:
    pointwise, depthwise, last = CPConv2d(32, 32, 3, padding=1, rank=16).folded()
    assert (pointwise.kernel_size, depthwise.kernel_size, last.kernel_size) == ((1, 1), (3, 3), (1, 1))
    assert depthwise.groups == 16


def test_the_seed_decides_the_fit() -> None:
    conv = nn.Conv2d(8, 8, 3)
    fits = [CPConv2d.from_dense(conv, rank=12, seed=seed).convs[0].weight for seed in (1, 1, 2)]
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])


def test_depthwise_convolutions_are_fitted_channel_by_channel() -> None:
    """With one input and output a group, a kernel of 3x3 is a matrix: rank 1 leaves its other singular values."""
    conv = nn.Conv2d(10, 10, 3, groups=10, bias=False, dtype=torch.float64)
    op = CPConv2d.from_dense(conv, rank=1)
    expected = torch.linalg.svdvals(conv.weight.squeeze(1))[:, 1:].square().sum().sqrt()
    assert_close((op.dense().weight - conv.weight).norm(), expected)


@pytest.mark.parametrize("rank", [4, 24])
def test_more_terms_fit_better_and_stay_bounded(rank: int) -> None:
    conv = nn.Conv2d(16, 12, 3, bias=False)
    few, many = (CPConv2d.from_dense(conv, rank=r) for r in (rank, 2 * rank))
    errors = [(op.dense().weight - conv.weight).norm() / conv.weight.norm() for op in (few, many)]
    assert errors[1] < errors[0] < 1
    (terms,) = many.component_norms()
    assert terms.norm() < 10 * conv.weight.norm()
