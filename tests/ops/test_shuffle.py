import pytest
import torch
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import ChannelShuffle2d, GroupedShuffleConv2d, channel_shuffle


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 12])
def test_shuffle_is_pytorchs_and_the_inverse_undoes_it(groups: int) -> None:
    x = torch.randn(2, 12, 5, 4)
    shuffled = channel_shuffle(x, groups)
    assert torch.equal(shuffled, nn.ChannelShuffle(groups)(x))
    assert torch.equal(channel_shuffle(shuffled, groups, inverse=True), x)


def test_two_grouped_convolutions_with_a_shuffle_connect_everything() -> None:
    x = torch.randn(1, 16, 1, 1, requires_grad=True)
    y = GroupedShuffleConv2d(16, 16, 1, groups=4)(GroupedShuffleConv2d(16, 16, 1, groups=4)(x))
    for channel in range(16):
        (seen,) = torch.autograd.grad(y[0, channel, 0, 0], x, retain_graph=True)
        assert torch.count_nonzero(seen) == 16


@pytest.mark.parametrize("inverse", [False, True])
def test_fit_keeps_the_weights_inside_the_structure_and_no_others(inverse: bool) -> None:
    conv = nn.Conv2d(8, 12, 3, padding=1, dtype=torch.float64)
    fitted = GroupedShuffleConv2d.from_dense(conv, channel_groups=4, inverse_shuffle=inverse)
    weight, kept = conv.weight, fitted.dense().weight
    inside = kept != 0
    assert inside.sum() == 12 * 2 * 9
    assert torch.equal(kept[inside], weight[inside])
    assert_close(fitted.dense().bias, conv.bias)
    assert_close(GroupedShuffleConv2d.from_dense(conv).dense().weight, weight)


def test_a_convolution_that_is_a_shuffle_is_recognised() -> None:
    conv = ChannelShuffle2d(24, 4).dense()
    assert ChannelShuffle2d.from_dense(conv).channel_groups == 4
    with torch.no_grad():
        conv.weight[0, 1] = 1
    with pytest.raises(UserError, match="ChannelShuffle2d"):
        ChannelShuffle2d.from_dense(conv)


@pytest.mark.parametrize("build", [lambda: ChannelShuffle2d(10, 4), lambda: GroupedShuffleConv2d(10, 8, 3, groups=4)])
def test_groups_must_divide_the_channels(build) -> None:
    with pytest.raises(UserError, match=r"`groups` must divide `in_channels` = 10, got 4; 5 would work"):
        build()
