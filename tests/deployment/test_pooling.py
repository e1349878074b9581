"""Pools round down in exported programs exactly where that is the same."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leanconv.deployment.program import export_program


class Pools(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            F.avg_pool2d(x, 2, ceil_mode=True),
            F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            F.max_pool2d(x, (2, 3), 2, dilation=(1, 2), ceil_mode=True),
            F.max_pool1d(x[:, :, 0], 2, ceil_mode=True),
        )


def rounding(size: int) -> list[bool]:
    x = torch.randn(2, 3, size, size)
    program = export_program(Pools(), (x,))
    for expected, found in zip(Pools()(x), program.module()(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    names = {"avg_pool2d": 4, "max_pool2d": 5, "max_pool1d": 5}
    pools = [node for node in program.graph.nodes if getattr(node.target, "_opname", None) in names]
    return [node.args[names[node.target._opname]] for node in pools]


@pytest.mark.parametrize(
    ("size", "up"), [(8, [False, True, True, False]), (9, [True, False, True, True]), (7, [True, False, True, True])]
)
def test_pools_round_up_only_where_it_makes_a_difference(size: int, up: list[bool]) -> None:
    assert rounding(size) == up
