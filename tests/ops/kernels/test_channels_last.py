"""Images rearranged by the kernel are the same images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanconv.ops.kernels import channels_last as module
from leanconv.ops.kernels.channels_last import channels_last

LAST = torch.channels_last


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(0, 4),
    channels=st.integers(1, 70),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    threads=st.sampled_from([1, 2]),
)
def test_only_the_order_in_memory_changes(
    images: int, channels: int, height: int, width: int, dtype: torch.dtype, threads: int
) -> None:
    x = torch.randn(images, channels, height, width).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = channels_last(x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(y, x)
    assert y.is_contiguous(memory_format=LAST)
    assert channels_last(y) is y


def test_what_is_no_number_stays_none() -> None:
    x = torch.full((1, 16, 4, 4), float("nan"))
    x[:, 3] = float("inf")
    for dtype in (torch.float32, torch.bfloat16):
        y = channels_last(x.to(dtype))
        assert torch.equal(y.isnan(), x.isnan())
        assert torch.equal(y.isinf(), x.isinf())


@pytest.mark.parametrize("kernel", [True, False])
def test_views_and_machines_without_a_compiler(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setattr(module, "library", lambda: None)
    x = torch.randn(2, 40, 8, 12)
    for view in (x, x[:, ::2], x[..., 2:], x.transpose(2, 3), x[1:]):
        assert torch.equal(channels_last(view), view)
        assert channels_last(view).is_contiguous(memory_format=LAST)
