import pytest
import torch
from torch.testing import assert_close

import oracles
from leanconv.errors import UserError
from leanconv.ops import SqueezeExcitation


def test_squeeze_excitation_equals_torchvisions() -> None:
    theirs = oracles.torchvision().ops.SqueezeExcitation(12, 3)
    ours = SqueezeExcitation(12, 4)
    ours.load_state_dict(
        {key: v.flatten(1) if v.dim() == 4 else v for key, v in theirs.state_dict().items()},
    )
    x = torch.randn(2, 12, 5, 7)
    assert_close(ours(x), theirs(x))


def test_squeezed_width_is_rounded_down_and_at_least_one() -> None:
    """144 channels at reduction 8 give 18 (a block of ANTNet), and a reduction beyond the channels still works."""
    assert [SqueezeExcitation(c, r).fc1.out_features for c, r in ((144, 8), (100, 64), (10, 4), (4, 16))] == [
        18,
        1,
        2,
        1,
    ]
    assert sum(p.numel() for p in SqueezeExcitation(64, 16).parameters()) == 2 * 64 * 4 + 64 + 4
    assert sum(p.numel() for p in SqueezeExcitation(64, 16, bias=False).parameters()) == 2 * 64 * 4


@pytest.mark.parametrize("reduction", [0.5, 0, -4, float("nan")])
def test_reduction_below_one_is_refused(reduction: float) -> None:
    with pytest.raises(UserError, match=r"`reduction`.*16 would work"):
        SqueezeExcitation(8, reduction)
