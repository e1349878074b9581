"""Saving and loading without pickle: what comes back is what was saved, or one sentence says why not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

import leanconv as lc
from leanconv.errors import UserError

METHODS: list[Any] = [
    lc.DepthwiseDecomposition(2),
    lc.NetworkDecoupling(2, order="pointwise"),
    lc.SpatialSVD(0.3),
    lc.ChannelDecomposition(3),
    lc.Tucker((4, 0.5)),
    lc.CP(5),
    lc.TensorTrain(4),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_networks_of_the_zoo_come_back_by_name(method: Any, tmp_path: Path) -> None:
    model = lc.create_model("resnet20_cifar", base_width=8, num_classes=7).eval()
    lean = lc.convert(model, method, where="stages.1.*").model
    path = lc.save(lean, tmp_path / "lean.safetensors")
    again = lc.load(path)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), lean(x))
    assert again.compression_record == lean.compression_record
    twice = lc.load(lc.save(again, tmp_path / "twice.safetensors"))
    assert torch.equal(twice(x), lean(x))


def own() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2)).eval()


def test_own_networks_come_back_onto_a_fresh_one(tmp_path: Path) -> None:
    lean = lc.convert(own(), lc.DepthwiseDecomposition(2), inputs=[torch.randn(32, 3, 9, 9)]).model.half()
    path = lc.save(lean, tmp_path / "own.safetensors")
    fresh = own()
    again = lc.load(path, fresh)
    assert type(fresh[0]) is nn.Conv2d
    assert_close(again.state_dict(), lean.state_dict(), rtol=0, atol=0)
    with pytest.raises(UserError, match="not of the zoo"):
        lc.load(path)
    with pytest.raises(UserError, match="'2' has groups 1 in the model and 2 in the file"):
        lc.load(path, nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)))
    with pytest.raises(UserError, match="no convolution '0'"):
        lc.load(path, nn.Sequential(nn.Linear(3, 3)))


def test_networks_that_were_not_converted_can_be_saved_too(tmp_path: Path) -> None:
    model = lc.create_model("ran26", base_width=8)
    assert_close(lc.load(lc.save(model, tmp_path / "ran.safetensors")).state_dict(), model.state_dict())


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(own().state_dict(), weights)
    with pytest.raises(UserError, match="does not say of which network"):
        lc.load(weights)
    with pytest.raises(UserError, match="does not exist"):
        lc.load(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="folder that does not exist"):
        lc.save(own(), tmp_path / "no" / "own.safetensors")
    path = lc.save(own(), tmp_path / "own.safetensors")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"own\.safetensors is damaged"):
        lc.load(path, own())


def test_an_interrupted_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lc.save(own(), tmp_path / "own.safetensors")
    before = load_file(path)

    def interrupted(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(UserError, match=r"No space left on device\); the previous one is intact"):
        lc.save(own(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["own.safetensors"]
    assert_close(load_file(path), before, rtol=0, atol=0)
