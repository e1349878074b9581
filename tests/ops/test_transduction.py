from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import OPERATORS, transduce
from leanconv.ops.factorized import FactorizedConv

FORMS = ("CPConv", "TuckerConv", "TensorTrainConv")


def frame_by_frame(operator: nn.Module, clip: torch.Tensor) -> torch.Tensor:
    return torch.stack([operator(frame) for frame in clip.unbind(2)], 2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"rank": 2, "padding": 1},
        {"rank": 2, "padding": 1, "stride": 2, "groups": 2, "bias": False},
        {"rank": 2, "padding": "same", "padding_mode": "circular", "dilation": 2},
        {"rank": 100},  # whole modes
    ],
)
def test_every_frame_is_treated_exactly_as_before(form: str, dims: int, kwargs: dict[str, Any]) -> None:
    operator = OPERATORS[f"{form}{dims}d"](4, 6, 3, **kwargs).double().eval()
    video = transduce(operator, 5)
    clip = torch.randn(2, 4, 7, *[6, 8][:dims], dtype=torch.float64)
    assert type(video).__name__ == f"{form}{dims + 1}d"
    assert_close(video(clip), frame_by_frame(operator, clip), rtol=1e-13, atol=1e-13)
    assert not video.training


@pytest.mark.parametrize("form", FORMS)
def test_tucker_with_factored_axes_and_even_kernels_too(form: str) -> None:
    rank = (2, 3, 2, 1) if form == "TuckerConv" else 3
    operator = OPERATORS[f"{form}2d"](4, 6, (4, 2), padding="same", rank=rank).double()
    clip = torch.randn(1, 4, 4, 6, 5, dtype=torch.float64)
    assert_close(transduce(operator, 3)(clip), frame_by_frame(operator, clip), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_stride_and_dilation_of_the_new_axis(form: str) -> None:
    operator = OPERATORS[f"{form}2d"](4, 6, 3, padding=1, rank=2).double()
    clip = torch.randn(1, 4, 9, 5, 5, dtype=torch.float64)
    video = transduce(operator, 3, stride=2, dilation=3)
    assert_close(video(clip), frame_by_frame(operator, clip[:, :, ::2]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_new_factor_trains_alone_and_starts_to_mix_frames(form: str) -> None:
    operator = OPERATORS[f"{form}2d"](4, 6, 3, padding=1, rank=2).double()
    video = transduce(operator, 3)
    assert all(parameter.requires_grad for parameter in video.parameters())
    video.requires_grad_(False)
    video.axis_conv(0).requires_grad_(True)
    clip = torch.randn(1, 4, 5, 6, 6, dtype=torch.float64)
    before = video(clip).detach()
    (video(clip) - torch.randn_like(before)).square().mean().backward()
    trained = [parameter for parameter in video.parameters() if parameter.grad is not None]
    assert [id(parameter) for parameter in trained] == [id(video.axis_conv(0).weight)]
    assert trained[0].grad.count_nonzero() > 0
    with torch.no_grad():
        trained[0] -= 0.1 * trained[0].grad
    later = clip.clone()
    later[:, :, 3] += 1
    assert (video(later) - video(clip))[:, :, 2].abs().max() > 1e-6


def test_old_operator_is_left_alone() -> None:
    operator = OPERATORS["CPConv2d"](4, 6, 3, rank=2)
    video = transduce(operator, 3)
    nn.init.zeros_(video.convolutions()[0].weight)
    assert operator.convolutions()[0].weight.any()


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"kernel_size": 4}, "`kernel_size` must be odd.*5 would"),
        ({"kernel_size": 1}, "`kernel_size`.*3 would"),
        ({"kernel_size": 3, "stride": 0}, "`stride`"),
        ({"kernel_size": 3, "dilation": 0}, "`dilation`"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict[str, int], said: str) -> None:
    operator = OPERATORS["CPConv2d"](4, 6, 3, rank=2)
    assert isinstance(operator, FactorizedConv)
    with pytest.raises(UserError, match=said):
        transduce(operator, **kwargs)


def test_operators_over_three_axes_cannot_have_one_more() -> None:
    operator = OPERATORS["CPConv3d"](4, 6, 3, rank=2)
    assert isinstance(operator, FactorizedConv)
    with pytest.raises(UserError, match=r"`operator`.*CPConv2d.*got CPConv3d"):
        transduce(operator, 3)
