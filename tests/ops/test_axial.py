import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import AxialConv1d, AxialConv2d, AxialConv3d

FORMS = {1: AxialConv1d, 2: AxialConv2d, 3: AxialConv3d}


def test_residual_depthwise_pair_is_the_outer_product_of_the_shifted_kernels() -> None:
    """(identity + a along the height) then (identity + b along the width) is the kernel (δ + a) ⊗ (δ + b)."""
    op = AxialConv2d(3, 3, 3, padding="same", groups=3, bias=False, residual=True).double()
    delta = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    a = op.convs[0].weight[:, 0, :, 0] + delta
    b = op.convs[1].weight[:, 0, 0, :] + delta
    kernel = (a[:, :, None] * b[:, None, :]).unsqueeze(1)
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    assert_close(op(x), F.conv2d(x, kernel, padding=1, groups=3), rtol=1e-12, atol=1e-12)


def test_height_comes_before_width() -> None:
    op = AxialConv2d(2, 2, (5, 3), groups=2)
    assert [conv.kernel_size for conv in op.convs] == [(5, 1), (1, 3)]


@settings(max_examples=15, deadline=None)
@given(
    dims=st.integers(1, 3),
    groups=st.sampled_from([1, 2]),
    outs=st.sampled_from([2, 6]),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "reflect", "circular"]),
    stride=st.integers(1, 2),
)
def test_any_convolution_is_exact_at_full_rank(
    dims: int, groups: int, outs: int, bias: bool, mode: str, stride: int
) -> None:
    conv = getattr(nn, f"Conv{dims}d")(
        4, outs, 3, stride, 1, groups=groups, bias=bias, padding_mode=mode, dtype=torch.float64
    )
    axial = FORMS[dims].from_dense(conv)
    x = torch.randn(2, 4, *[6, 7, 5][:dims], dtype=torch.float64)
    assert_close(axial(x), conv(x), rtol=1e-10, atol=1e-10)


def test_truncated_fit_has_the_error_of_the_discarded_singular_values() -> None:
    conv = nn.Conv2d(4, 6, 3, bias=False, dtype=torch.float64)
    axial = AxialConv2d.from_dense(conv, mid_channels=5)
    unfolding = conv.weight.permute(1, 2, 3, 0).reshape(12, 18)
    expected = torch.linalg.svdvals(unfolding)[5:].square().sum().sqrt()
    assert_close((axial.dense().weight - conv.weight).norm(), expected, rtol=1e-9, atol=0)


def test_truncated_fit_over_three_axes_is_quasi_optimal() -> None:
    """Oseledets (2011), theorem 2.2: the squared error is at most the sum of those of the single cuts."""
    conv = nn.Conv3d(4, 6, 3, bias=False, dtype=torch.float64)
    weight = conv.weight * torch.logspace(0, -6, 6, dtype=torch.float64).view(6, 1, 1, 1, 1)  # steep spectra
    conv.weight.data.copy_(weight)
    error = (AxialConv3d.from_dense(conv, mid_channels=(8, 3)).dense().weight - weight).norm()
    unfolded = weight.permute(1, 2, 3, 4, 0)
    cuts = [torch.linalg.svdvals(unfolded.reshape(4 * 3**k, -1))[r:].square().sum() for k, r in ((1, 8), (2, 3))]
    assert max(cuts).sqrt() <= error <= sum(cuts).sqrt()


def test_norm_stands_inside_the_residual() -> None:
    op = AxialConv2d(2, 2, 3, padding="same", groups=2, bias=False, residual=True, norm_layer=nn.BatchNorm2d).eval()
    for norm in op.norms:
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, 3.0)
    x = torch.randn(1, 2, 5, 5)
    assert_close(op(x), x + 6)
    with pytest.raises(UserError, match="norm_layer"):
        op.dense()


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"groups": 3}, "groups"),
        ({"kernel_size": 2, "padding": "same", "residual": True}, "kernel_size"),
        ({"padding": 0, "residual": True}, "padding"),
        ({"out_channels": 8, "residual": True, "padding": "same"}, "out_channels=4"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size"),
        ({"stride": 0}, "stride"),
        ({"padding_mode": "mirror"}, "padding_mode"),
        ({"mid_channels": 0}, "mid_channels"),
        ({"out_channels": 0}, "`out_channels` must be at least 1"),
        ({"kernel_size": 4, "padding": "same", "stride": 2}, "kernel_size"),
        ({"padding": "full"}, "padding"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        AxialConv2d(**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, **kwargs})
