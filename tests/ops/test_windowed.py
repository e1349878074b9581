import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from leanconv.ops import windowed

FLOAT64 = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(params=[False, True], ids=["one_by_one", "batched"])
def _batched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of the processor and the way of the accelerator, both on the processor."""
    monkeypatch.setattr(windowed, "batched", lambda x: request.param)


def by_gathering(x: torch.Tensor, weight: torch.Tensor, starts: list[int], interleave: bool) -> torch.Tensor:
    """Each window gathered element by element."""
    windows, rows, width = weight.shape
    samples = x.shape[2:].numel()
    images = x.flatten(1)
    blocks = []
    for start in starts:
        places = (start + torch.arange(width * samples)) % images.shape[1]
        blocks.append(images[:, places].view(len(x), width, samples))
    y = torch.einsum("vrw,vnws->nrvs" if interleave else "vrw,vnws->nvrs", weight, torch.stack(blocks))
    return y.reshape(len(x), windows * rows, *x.shape[2:])


@pytest.mark.usefixtures("_batched")
@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_windows_of_memory(batch: int, interleave: bool) -> None:
    x = torch.randn(batch, 8, 3, 5, dtype=torch.float64)
    weight = torch.randn(4, 2, 3, dtype=torch.float64)
    bias = torch.randn(8, dtype=torch.float64)
    starts = [7, 30, 118, 75]  # between rows, on a row, around the end with one element over, and up to the end
    y = windowed.windowed_pointwise(x, weight, starts, bias, interleave=interleave)
    assert_close(y, by_gathering(x, weight, starts, interleave) + bias.view(-1, 1, 1), **FLOAT64)


@pytest.mark.usefixtures("_batched")
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_shifted_groups(groups: int) -> None:
    x = torch.randn(3, 8, 7, dtype=torch.float64)
    weight = torch.randn(groups, 3, 8 // groups, dtype=torch.float64)
    for first in range(8 // groups):
        expected = F.conv1d(x.roll(-first, 1), weight.flatten(0, 1).unsqueeze(2), groups=groups)
        assert_close(windowed.shifted_pointwise(x, weight, first), expected, **FLOAT64)


@pytest.mark.parametrize("interleave", [False, True])
def test_windows_of_channels_that_lie_last(interleave: bool) -> None:
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    weight = torch.randn(3, 2, 4, dtype=torch.float64)
    expected = by_gathering(x, weight, [0, 45, 90], interleave)
    y = windowed.windowed_pointwise_last(
        x.contiguous(memory_format=torch.channels_last), weight, [0, 3, 6], interleave=interleave
    )
    assert_close(y, expected, **FLOAT64)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_the_form_follows_from_size_layout_and_type() -> None:
    def form(*shape: int, width: int, dtype: torch.dtype = torch.float32, last: bool = False) -> str | None:
        x = torch.empty(shape, dtype=dtype)
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        return windowed.inference_form(x, torch.empty(shape[1], width, dtype=dtype))

    assert form(1, 384, 14, 14, width=96) == "first"
    assert form(4, 384, 14, 14, width=96) is None  # few images, small maps
    assert form(16, 384, 14, 14, width=96) == "parts"
    assert form(16, 384, 14, 14, width=96, last=True) == "parts"
    assert form(1, 384, 14, 14, width=96, last=True) is None
    assert form(16, 384, 14, 14, width=96, dtype=torch.float64) is None
    assert form(16, 96, 56, 56, width=24) == "first"  # little to compute
    assert form(16, 96, 56, 56, width=24, dtype=torch.bfloat16) is None
    assert form(16, 16, 28, 28, width=4) is None  # next to nothing to compute
    assert form(16, 128, 16, 16, width=32) == "parts"


def test_only_eager_inference_on_dense_memory_has_other_forms() -> None:
    x, weight = torch.randn(2, 64, 24, 24), torch.randn(64, 16)
    assert windowed.inference_form(x, weight) == "first"
    assert windowed.inference_form(x[:, ::2], weight) is None
    assert windowed.inference_form(x[:0], weight) is None
    assert windowed.inference_form(x.double(), weight) is None
    assert windowed.inference_form(x.to("meta"), weight.to("meta")) is None
    assert windowed.inference_form(x, weight.clone().requires_grad_()) is None
    with torch.no_grad():
        assert windowed.inference_form(x, weight.clone().requires_grad_()) == "first"
    with torch.autocast("cpu", torch.bfloat16):
        assert windowed.inference_form(x, weight) is None
