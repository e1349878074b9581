import errno
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn
from toy_images import toy_data, toy_net

from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.training import Recipe, load_weights, train
from leanconv.training.checkpoint import BEST, LAST, load_checkpoint

SHORT = Recipe(epochs=3, batch_size=16, warmup_epochs=1, ema=0.9)


def _train(folder: Path, recipe: Recipe = SHORT, model: nn.Module | None = None, **options: Any) -> Any:
    options = {"progress": False, "log": ()} | options
    return train(model or toy_net(), options.pop("data", None) or toy_data(), recipe, folder, **options)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    _train(tmp_path)
    return tmp_path


def _state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_checkpoint_holds_the_whole_state_of_the_run(tmp_path: Path) -> None:
    result = _train(tmp_path)
    last, best = load_checkpoint(tmp_path / LAST), load_checkpoint(tmp_path / BEST)
    assert (last.epoch, last.step) == (3, 18)
    assert Recipe(**last.recipe) == SHORT
    assert last.config == toy_net().config
    assert last.history == result.history
    assert best.history[-1] == result.best
    assert set(last.model) == set(toy_net().state_dict())
    assert {f"{name}/momentum_buffer" for name, _ in toy_net().named_parameters()} == set(last.optimizer)
    for name, value in result.model.state_dict().items():
        assert torch.equal(last.ema[f"module.{name}"], value)
    assert set(_state(tmp_path)) == {LAST, BEST}


def test_a_folder_with_a_run_is_not_overwritten_by_accident(run: Path) -> None:
    before = _state(run)
    with pytest.raises(UserError, match=r"already holds a run: .*resume=True.*overwrite=True"):
        _train(run)
    assert _state(run) == before
    assert len(_train(run, replace(SHORT, epochs=2), overwrite=True).history) == 2
    assert load_checkpoint(run / LAST).epoch == 2


def test_a_finished_run_resumes_to_its_result(run: Path) -> None:
    before = _state(run)
    result = _train(run, resume=True, model=toy_net(5))
    assert len(result.history) == 3
    assert _state(run) == before
    loaded = load_weights(toy_net(6), run / LAST)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), result.model.parameters(), strict=True))


def test_resume_of_an_empty_folder_starts(tmp_path: Path) -> None:
    assert len(_train(tmp_path / "new", resume=True).history) == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lr": 0.05}, r"trained with lr=0\.1 and the recipe says lr=0\.05"),
        ({"seed": 3}, "trained with seed=0 and the recipe says seed=3"),
        ({"ema": 0.0}, r"trained with ema=0\.9"),
        ({"optimizer": "adamw"}, "trained with optimizer='sgd'"),
    ],
)
def test_resume_with_another_recipe_names_the_difference(run: Path, change: dict[str, Any], sentence: str) -> None:
    before = _state(run)
    with pytest.raises(UserError, match=sentence):
        _train(run, replace(SHORT, **change), resume=True)
    assert _state(run) == before


def test_a_run_may_be_prolonged_and_moved_to_another_precision(run: Path) -> None:
    result = _train(run, replace(SHORT, epochs=5, precision="bf16", channels_last=True), resume=True)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5]


def test_resume_of_another_network_or_on_other_data_names_both(run: Path) -> None:
    before = _state(run)
    with pytest.raises(UserError, match=r"is of toy\(classes=7, width=8\) and the model is toy\(classes=7, width=4\)"):
        _train(run, model=toy_net(width=4), resume=True)
    with pytest.raises(UserError, match=r"is of toy\(.* and the model is ran26\("):
        _train(run, model=create_model("ran26", num_classes=7, base_width=4), resume=True)
    nameless = toy_net(width=4)
    del nameless.config
    with pytest.raises(UserError, match=r"'conv.weight' is \(8, 3, 3, 3\) in the file and \(4, 3, 3, 3\)"):
        _train(run, model=nameless, resume=True)
    with pytest.raises(UserError, match=r"toy \(96 images of 7 classes\) and the data is toy \(80 images of 7 classes"):
        _train(run, data=toy_data(train=80), resume=True)
    assert _state(run) == before


def test_damaged_checkpoints_are_refused_and_left_alone(run: Path) -> None:
    whole = (run / LAST).read_bytes()
    for length in (0, 7, 1000, len(whole) // 2, len(whole) - 1):
        (run / LAST).write_bytes(whole[:length])
        before = _state(run)
        with pytest.raises(UserError, match=r"last\.safetensors is damaged"):
            _train(run, resume=True)
        assert _state(run) == before


def test_weights_only_are_no_run_to_resume(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(toy_net().state_dict(), tmp_path / LAST)
    with pytest.raises(UserError, match="holds weights only"):
        _train(tmp_path, resume=True)


def test_a_full_disk_keeps_the_previous_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _state(run)
    really_open = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        opened = really_open(path, mode, *args, **kwargs)
        if mode != "wb":
            return opened

        def half(content: bytes) -> None:
            opened.raw.write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        disk = MagicMock(wraps=opened)
        disk.__enter__.return_value.write = half
        disk.__exit__.side_effect = lambda *_: opened.close()
        return disk

    monkeypatch.setattr(Path, "open", full)
    sentence = r"could not be written \(No space left on device\); the previous one is intact"
    with pytest.raises(UserError, match=sentence):
        _train(run, replace(SHORT, epochs=4), resume=True)
    monkeypatch.undo()
    assert _state(run) == before, "neither half a file nor a temporary one stays behind"
    assert len(_train(run, replace(SHORT, epochs=4), resume=True).history) == 4


def test_a_temporary_file_left_by_a_kill_does_no_harm(run: Path) -> None:
    (run / f"{LAST}.tmp").write_bytes((run / LAST).read_bytes()[:500])
    assert len(_train(run, replace(SHORT, epochs=4), resume=True).history) == 4
    assert set(_state(run)) == {LAST, BEST}


def test_tied_weights_are_saved_and_resumed(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(192, 192)
            self.two = nn.Linear(192, 192)
            self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x.flatten(1)))

    _train(tmp_path, SHORT, Tied())
    assert len(_train(tmp_path, replace(SHORT, epochs=4), Tied(), resume=True).history) == 4
