import pytest
import torch
from torch import nn
from torch.testing import assert_close

from leanconv.ops.chain import fold_chain


def depthwise(kernel: tuple[int, int], **kwargs: object) -> nn.Conv2d:
    return nn.Conv2d(8, 8, kernel, groups=8, bias=False, dtype=torch.float64, **kwargs)


def point(ins: int, outs: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, 1, bias=bias, dtype=torch.float64)


@pytest.mark.parametrize(
    ("convs", "left"),
    [
        ([depthwise((3, 1), padding=(1, 0)), depthwise((1, 5), padding=(0, 2))], 1),
        ([depthwise((7, 1)), depthwise((1, 7))], 2),  # 49 taps read less often, but that many more products
        ([depthwise((3, 1), stride=(2, 1)), depthwise((1, 3), stride=(1, 3), dilation=(1, 2))], 1),
        ([depthwise((4, 1), padding="same"), depthwise((1, 2), padding="same")], 1),
        ([depthwise((3, 1)), depthwise((3, 1))], 1),  # along the same axis
        ([depthwise((3, 1)), depthwise((3, 1), padding=(1, 0))], 2),  # zeros beside what was computed
        ([depthwise((3, 1)), nn.Conv2d(8, 8, (1, 3), groups=4, dtype=torch.float64)], 2),  # other groups
        ([point(8, 8), nn.Conv2d(8, 4, (3, 1), padding=(1, 0), padding_mode="reflect", dtype=torch.float64)], 1),
        ([point(8, 2), nn.Conv2d(2, 8, (3, 1), dtype=torch.float64)], 2),  # a real bottleneck
        ([point(8, 8, bias=True), point(8, 8)], 2),  # a bias in between
        ([point(8, 6), point(6, 8), point(8, 8, bias=True)], 1),
    ],
)
def test_neighbours_merge_where_it_pays_and_the_product_stays(convs: list[nn.Conv2d], left: int) -> None:
    folded = fold_chain(convs)
    x = torch.randn(2, 8, 11, 12, dtype=torch.float64)
    assert len(folded) == left
    assert_close(nn.Sequential(*folded)(x), nn.Sequential(*convs)(x))


def test_a_stride_behind_makes_a_pointwise_convolution_worth_merging() -> None:
    """8 -> 5 -> 8 over three taps takes 40 + 120 products an output and at stride 2 80 + 120; at once it takes 192."""
    convs = [point(8, 5), nn.Conv2d(5, 8, (3, 1), dtype=torch.float64)]
    assert len(fold_chain(convs)) == 2
    convs[1] = nn.Conv2d(5, 8, (3, 1), stride=(2, 1), dtype=torch.float64)
    assert len(fold_chain(convs)) == 1


def test_result_shares_no_memory_and_keeps_parameters_trainable() -> None:
    conv = point(8, 8, bias=True)
    (copy,) = fold_chain([conv])
    nn.init.zeros_(copy.weight)
    assert conv.weight.any()
    assert copy.weight.requires_grad
    assert copy.bias is not None
    assert torch.equal(copy.bias, conv.bias)
