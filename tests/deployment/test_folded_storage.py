"""Folded networks in files: back with the same outputs, by name or onto the user's own network."""

from pathlib import Path

import pytest
import torch
from torch import nn
from trained import trained

import leanconv
from leanconv.compression import NetworkDecoupling, convert
from leanconv.deployment import fold, load, save
from leanconv.errors import UserError
from leanconv.models import create_model

X = torch.randn(2, 3, 32, 32)


def same(a: nn.Module, b: nn.Module) -> None:
    with torch.no_grad():
        torch.testing.assert_close(b(X), a(X), rtol=0, atol=0)


@pytest.mark.parametrize("size", [None, (1, 3, 32, 32)])
@pytest.mark.parametrize("prepare", [trained, nn.Module.eval])
def test_a_folded_network_of_the_zoo_comes_back_by_name(prepare, size, tmp_path: Path) -> None:
    lean = fold(prepare(create_model("ran26", base_width=4, num_classes=3)), target="onnxruntime", input_size=size)
    again = load(save(lean, tmp_path / "lean.safetensors"))
    same(lean, again)
    assert str(again.fold_record) == str(lean.fold_record)
    assert not again.training
    same(again, load(save(again, tmp_path / "again.safetensors")))


def test_a_converted_and_folded_network_comes_back(tmp_path: Path) -> None:
    model = trained(create_model("resnet20_cifar", base_width=4))
    lean = fold(convert(model, NetworkDecoupling(1)).model.eval())
    same(lean, leanconv.load(leanconv.save(lean, tmp_path / "lean.safetensors")))


def own() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)).eval()


def test_another_network_comes_back_onto_a_fresh_one(tmp_path: Path) -> None:
    lean = fold(trained(own()))
    path = save(lean, tmp_path / "lean.safetensors")
    fresh = own()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    same(lean, load(path, fresh))
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())
    with pytest.raises(UserError, match="`model` is needed"):
        load(path)
    with pytest.raises(UserError, match="do not fit the model"):
        load(path, nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)).eval())


def test_a_network_that_is_not_folded_is_saved_as_ever(tmp_path: Path) -> None:
    model = create_model("ran26", base_width=4, num_classes=3).eval()
    again = load(save(model, tmp_path / "net.safetensors"))
    same(model, again)
    assert again.config == model.config


def test_folds_that_times_decided_are_not_saved(tmp_path: Path) -> None:
    lean = fold(own(), input_size=(1, 3, 8, 8), timing=lambda *_: 1.0)
    with pytest.raises(UserError, match="folded by measured times"):
        save(lean, tmp_path / "lean.safetensors")
    assert not list(tmp_path.iterdir())
