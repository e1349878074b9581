"""Depthwise pairs that folding leaves are computed at once in PyTorch, and only there."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from trained import trained

from leanconv.deployment import fold, load, save
from leanconv.models import create_model
from leanconv.ops import AxialConv2d
from leanconv.ops.kernels.depthwise_pair import DepthwisePair

X = torch.randn(2, 20, 9, 11)


def block(*after: nn.Module, kernel: int = 3) -> nn.Module:
    axial = AxialConv2d(20, 20, kernel, padding="same", groups=20, bias=False, residual=True, norm_layer=nn.BatchNorm2d)
    return trained(nn.Sequential(axial, *after))


def pairs(model: nn.Module) -> list[DepthwisePair]:
    return [module for module in model.modules() if isinstance(module, DepthwisePair)]


@torch.no_grad()
def agree(model: nn.Module, folded: nn.Module, x: Tensor = X) -> None:
    expected = copy.deepcopy(model).double()(x.double())
    torch.testing.assert_close(folded(x).double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
@pytest.mark.parametrize(
    ("activation", "upper"), [(nn.ReLU(), float("inf")), (nn.ReLU6(), 6.0), (nn.SiLU(), 0.0), (nn.Identity(), 0.0)]
)
def test_a_residual_axial_block_becomes_one_module(kernel: int, activation: nn.Module, upper: float) -> None:
    model = block(activation, kernel=kernel)
    folded = fold(model)
    assert [pair.upper for pair in pairs(folded)] == [upper]
    assert sum(isinstance(module, nn.ReLU | nn.ReLU6) for module in folded.modules()) == 0
    assert "both axes in one pass over memory" in str(folded.fold_record)
    agree(model, folded)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_other_engines_get_two_convolutions(target: str) -> None:
    model = block(nn.ReLU())
    folded = fold(model, target=target)
    assert not pairs(folded)
    agree(model, folded)
    again = fold(fold(model), target=target)  # read through what was made for PyTorch
    assert not pairs(again)
    agree(model, again)


def test_what_others_read_or_hook_stays() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(20, 20, (3, 1), padding=(1, 0), groups=20)
            self.second = nn.Conv2d(20, 20, (1, 3), padding=(0, 1), groups=20)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            first = self.first(x)
            return self.act(self.second(first)) + self.second(first.relu()) - first

    model = Shared().eval()
    folded = fold(model)
    assert not pairs(folded)
    agree(model, folded)
    hooked = nn.Sequential(model.first, model.second).eval()
    hooked[1].register_forward_hook(lambda *_: None)
    assert not pairs(fold(hooked))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_with_pairs_comes_back_from_its_file(dtype: torch.dtype, tmp_path: Path) -> None:
    model = trained(create_model("ran26", base_width=16, num_classes=3)).to(dtype)
    lean = fold(model)
    assert len(pairs(lean)) == 8  # one a block that is not strided
    again = load(save(lean, tmp_path / "lean.safetensors"))
    x = torch.randn(2, 3, 32, 32, dtype=dtype)
    with torch.no_grad():
        torch.testing.assert_close(again(x), lean(x), rtol=0, atol=0)
    assert str(again.fold_record) == str(lean.fold_record)
