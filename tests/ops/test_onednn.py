import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from leanconv.ops import onednn
from leanconv.ops.onednn import in_parts, pointwise, worthwhile


@pytest.mark.parametrize(("shape", "conv"), [((9,), F.conv1d), ((3, 5), F.conv2d), ((2, 3, 4), F.conv3d)])
@pytest.mark.parametrize("bias", [None, torch.randn(6)])
def test_equals_pytorch_in_any_number_of_axes(shape: tuple[int, ...], conv, bias: torch.Tensor | None) -> None:
    x, weight = torch.randn(3, 8, *shape), torch.randn(6, 4)
    expected = conv(x, weight.view(6, 4, *[1] * len(shape)), bias, groups=2)
    assert_close(pointwise(x, weight, bias, groups=2), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("batch", "sizes"), [(1, [1]), (7, [7]), (8, [2, 2, 2, 2]), (18, [5, 5, 5, 3])])
def test_parts_are_of_like_size_and_in_order(
    batch: int, sizes: list[int], layout: torch.memory_format, monkeypatch
) -> None:
    x = torch.randn(batch, 3, 5, 4).contiguous(memory_format=layout)
    seen = []

    def form(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape[0])
        return 2 * part[:, :2].contiguous(memory_format=layout)

    monkeypatch.setattr(onednn, "LEAST_ELEMENTS", 8 * 60)
    y = in_parts(form, x)
    assert torch.equal(y, 2 * x[:, :2])
    assert y.is_contiguous(memory_format=layout)
    assert seen == sizes


def test_parts_of_large_images_are_small() -> None:
    seen = []
    in_parts(lambda part: seen.append(part.shape[0]) or part, torch.zeros(4, 1, 1000, 1000), parts=1)
    assert seen == [1, 1, 1, 1]


def test_pays_for_enough_images_and_work_only(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.empty(8, 64, 32, 32), torch.empty(64, 16, 1, 1)
    assert worthwhile(x, weight)
    assert not worthwhile(x[:7], weight)
    assert not worthwhile(x[..., :8], weight)
    assert not worthwhile(x.double(), weight.double())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not worthwhile(x, weight)
