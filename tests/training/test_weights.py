from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_images import toy_data, toy_net

from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.training import Recipe, evaluate, load_weights, train


def _same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_a_plain_state_dict_loads_whatever_wrapper_it_was_saved_from(tmp_path: Path, prefix: str) -> None:
    source, target = toy_net(1), toy_net(2)
    save_file({prefix + name: value for name, value in source.state_dict().items()}, tmp_path / "w.safetensors")
    assert load_weights(target, tmp_path / "w.safetensors") is target
    assert _same(source, target)


def test_files_without_batch_counters_load(tmp_path: Path) -> None:
    source = {n: v for n, v in toy_net(1).state_dict().items() if not n.endswith("num_batches_tracked")}
    save_file(source, tmp_path / "w.safetensors")
    assert _same(load_weights(toy_net(2), tmp_path / "w.safetensors"), toy_net(1))


def test_averaged_weights_are_preferred_and_are_those_that_were_evaluated(tmp_path: Path) -> None:
    data = toy_data()
    recipe = Recipe(epochs=2, batch_size=16, warmup_epochs=0, ema=0.9)
    result = train(toy_net(), data, recipe, tmp_path, progress=False, log=())
    loaded = load_weights(toy_net(3), tmp_path / "last.safetensors")
    assert _same(loaded, result.model)
    assert evaluate(loaded, data, batch_size=16)["loss"] == result.last["test_loss"]


def test_misfits_name_the_first_difference_and_leave_the_model_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(toy_net(1, width=4).state_dict(), path)
    model = toy_net(2)
    with pytest.raises(UserError, match=r"'conv.weight' is \(4, 3, 3, 3\) in the file and \(8, 3, 3, 3\) in the model"):
        load_weights(model, path)
    state = toy_net(1).state_dict()
    state["classifier.weight"] = state.pop("linear.weight")
    save_file(state, path)
    with pytest.raises(UserError, match=r"the file lacks 'linear.weight'; the model lacks 'classifier.weight'"):
        load_weights(model, path)
    assert _same(model, toy_net(2))


def test_a_checkpoint_of_a_twin_with_the_same_parameters_is_refused(tmp_path: Path) -> None:
    """The two differ in residual connections only."""
    data = toy_data(train=8, test=4, classes=3)
    options = {"num_classes": 3, "base_width": 4}
    recipe = Recipe(epochs=1, batch_size=8, warmup_epochs=0)
    train(create_model("axial26", **options), data, recipe, tmp_path, progress=False, log=())
    with pytest.raises(UserError, match=r"is of axial26\(.*and the model is ran26\("):
        load_weights(create_model("ran26", **options), tmp_path / "last.safetensors")


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match="does not exist"):
        load_weights(toy_net(), path)
    save_file(toy_net(1).state_dict(), path)
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"w\.safetensors is damaged"):
            load_weights(toy_net(), path)
    path.write_bytes(b"\x80\x04pickle" * 50)
    with pytest.raises(UserError, match=r"w\.safetensors is damaged or no safetensors file"):
        load_weights(toy_net(), path)


def test_names_that_a_model_translates_load(data_folder: Path) -> None:
    path = data_folder / "weights/resnet20_cifar10.safetensors"
    model = load_weights(create_model("resnet20_cifar"), path)
    assert torch.equal(model.state_dict()["head.fc.weight"], load_file(path)["linear.weight"])
