import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import RollingPointwise1d, RollingPointwise2d
from leanconv.ops.rolling import window_starts


def filter_by_filter(operator: RollingPointwise2d, x: torch.Tensor) -> torch.Tensor:
    """The definition: filter f sums its weights times the channels from its start on."""
    width = operator.in_channels // operator.channel_groups
    channels = [
        sum(row[j] * x[:, (start + j) % operator.in_channels] for j in range(width))
        for row, start in zip(operator.weight, operator.window_starts, strict=True)
    ]
    y = torch.stack(channels, 1)
    return y if operator.bias is None else y + operator.bias.view(-1, 1, 1)


@settings(max_examples=30, deadline=None)
@given(
    channels=st.sampled_from([(8, 1), (8, 8), (16, 64), (24, 50), (64, 64)]),
    groups=st.sampled_from([1, 2, 4, 8]),
    overlap=st.sampled_from([0, 0.25, 0.33, 0.5, 0.75, 0.9]),
    bias=st.booleans(),
    batch=st.sampled_from([1, 2]),
    last=st.booleans(),
)
def test_every_path_equals_the_definition(
    channels: tuple[int, int], groups: int, overlap: float, bias: bool, batch: int, last: bool
) -> None:
    operator = RollingPointwise2d(*channels, groups, overlap, bias=bias).double()
    x = torch.randn(batch, channels[0], 12, 11, dtype=torch.float64)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = filter_by_filter(operator, x)
    assert_close(operator(x), expected, rtol=1e-12, atol=1e-12)
    with torch.inference_mode():
        assert_close(operator(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("overlap", [0.5, 0.33])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("batch", "size"), [(1, 12), (2, 32), (12, 16)])
def test_every_form_of_inference_equals_the_plain_form(overlap: float, last: bool, batch: int, size: int) -> None:
    operator = RollingPointwise2d(128, 192, 2, overlap, bias=True)
    x = torch.randn(batch, 128, size, size)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = operator(x)
    with torch.inference_mode():
        assert_close(operator(x), expected, rtol=1e-4, atol=1e-5)


def test_windows_start_where_the_rule_says() -> None:
    assert window_starts(64, 8, 2, 0.5) == [0, 16, 32, 48, 0, 16, 32, 48]
    assert window_starts(8, 5, 4, 0) == [0, 2, 4, 6, 0]
    assert window_starts(64, 4, 4, 0.25) == [0, 12, 24, 36]
    assert len(set(window_starts(64, 64, 4, 0.25))) == 16
    assert len(set(window_starts(64, 64, 8, 0.33))) == 28
    assert window_starts(100, 26, 10, 0.33)[25] == 67  # 25 * 0.67 * 10 = 167.5, taken exactly


def test_one_group_without_overlap_is_a_pointwise_convolution() -> None:
    operator = RollingPointwise2d(6, 9, groups=1, overlap=0.0)
    x = torch.randn(2, 6, 4, 5)
    assert_close(operator(x), F.conv2d(x, operator.weight[..., None, None]))


def test_without_overlap_filters_roll_over_the_groups() -> None:
    operator = RollingPointwise2d(8, 12, groups=4, overlap=0.0)
    x = torch.randn(2, 8, 3, 3)
    by_group = operator.weight.unflatten(0, (3, 4)).transpose(0, 1).flatten(0, 1)
    grouped = F.conv2d(x, by_group[..., None, None], groups=4)
    assert_close(operator(x), grouped.unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2))


@pytest.mark.parametrize(("groups", "shares"), [(2, (0.5, 1, 1)), (4, (0.25, 1, 1)), (8, (0.125, 0.5625, 1))])
def test_reach_of_stacked_layers(groups: int, shares: tuple[float, ...]) -> None:
    """Share of 64 channels that an output sees after one, two and three layers; two suffice at four groups."""
    reach = torch.eye(64)[None]
    for share in shares:
        layer = RollingPointwise1d(64, 64, groups, 0.5)
        nn.init.ones_(layer.weight)
        reach = layer(reach)
        assert reach.count_nonzero() / 64**2 == share


def test_cost_does_not_depend_on_the_overlap() -> None:
    for overlap in (0, 0.25, 0.33, 0.75):
        assert sum(p.numel() for p in RollingPointwise2d(64, 96, 4, overlap).parameters()) == 64 * 96 // 4


def test_fit_keeps_the_weights_inside_the_windows_and_no_others() -> None:
    conv = nn.Conv2d(16, 24, 1, dtype=torch.float64)
    fitted = RollingPointwise2d.from_dense(conv, channel_groups=4, overlap=0.25)
    kept = fitted.dense().weight
    inside = kept != 0
    assert inside.sum() == 24 * 4
    assert torch.equal(kept[inside], conv.weight[inside])
    assert_close(RollingPointwise2d.from_dense(conv).dense().weight, conv.weight)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"overlap": 1}, "`overlap` must be at least 0 and below 1, got 1; 0.5 would work"),
        ({"overlap": -0.25}, "`overlap`"),
        ({"groups": 3}, "`groups` must divide `in_channels` = 8, got 3; 2 would work"),
        ({"out_channels": 0}, "`out_channels`"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        RollingPointwise2d(**{"in_channels": 8, "out_channels": 8, **kwargs})
