import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_images import toy_data, toy_net

from leanconv.errors import UserError
from leanconv.training import Classify, Recipe, evaluate, train

SHORT = Recipe(epochs=4, batch_size=16, warmup_epochs=1, log_every=2)


def _train(recipe: Recipe = SHORT, model: nn.Module | None = None, **options: Any) -> Any:
    options = {"progress": False, "log": ("jsonl",), "data": toy_data()} | options
    return train(model or toy_net(), options.pop("data"), recipe, options.pop("folder", None), **options)


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def test_a_network_learns_and_its_history_says_so() -> None:
    rows: list[dict[str, Any]] = []
    result = _train(replace(SHORT, epochs=6), on_progress=rows.append)
    assert result.last["test_top1"] > 0.9
    assert result.last["train_loss"] < result.history[0]["train_loss"]
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in result.history] == [6, 12, 18, 24, 30, 36]
    assert rows == result.history
    assert result.best == max(result.history, key=lambda row: row["test_top1"])
    assert result.last is result.history[-1]
    assert not result.model.training


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weights_are_those_of_a_loop_written_out(optimizer: str) -> None:
    """Full batches without augmentation need no knowledge of the order: every step sees all images."""
    recipe = Recipe(
        epochs=3, batch_size=96, warmup_epochs=1, optimizer=optimizer, lr=0.05, momentum=0.8, label_smoothing=0.1
    )
    trained = _train(recipe, toy_net(dropout=0.0)).model
    model, data = toy_net(dropout=0.0), toy_data()
    if optimizer == "sgd":
        rule: Any = torch.optim.SGD(model.parameters(), lr=0, momentum=0.8, weight_decay=1e-4)
    else:
        rule = torch.optim.AdamW(model.parameters(), lr=0, betas=(0.8, 0.999), weight_decay=1e-4)
    images = (data.train.images / 255 - 0.25) / 0.25
    for rate in (0.05, 0.05, 0.025):
        rule.param_groups[0]["lr"] = rate
        rule.zero_grad()
        F.cross_entropy(model(images), data.train.labels, label_smoothing=0.1).backward()
        rule.step()
    torch.testing.assert_close(_weights(trained), _weights(model), rtol=1e-4, atol=1e-5)


def test_parts_of_a_batch_add_up_to_the_batch() -> None:
    """Without batch norm, whose statistics depend on the part, accumulation changes rounding only."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 7))
    whole = _train(SHORT, copy.deepcopy(model))
    parts = _train(replace(SHORT, accumulate=3), copy.deepcopy(model))
    torch.testing.assert_close(_weights(parts.model), _weights(whole.model), rtol=1e-4, atol=1e-6)
    assert parts.last["train_loss"] == pytest.approx(whole.last["train_loss"], rel=1e-5)


def test_same_seed_same_weights_other_seed_other_weights() -> None:
    before = torch.get_rng_state()
    one, same, other = _train(), _train(), _train(replace(SHORT, seed=1))
    assert torch.equal(_weights(one.model), _weights(same.model))
    assert not torch.equal(_weights(one.model), _weights(other.model))
    assert torch.equal(torch.get_rng_state(), before), "the caller's generator is left as it was"


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"channels_last": True}, {"clip": 0.5}])
def test_options_still_learn(change: dict[str, Any]) -> None:
    plain, result = _train(), _train(replace(SHORT, epochs=6, **change))
    assert result.last["test_top1"] > 0.8
    assert result.history[0]["train_loss"] != plain.history[0]["train_loss"] or "channels_last" in change


def test_clip_bounds_the_step() -> None:
    """Plain SGD with one step moves the weights by lr times a gradient of at most the given norm."""
    recipe = Recipe(
        epochs=1, batch_size=96, warmup_epochs=0, lr=1.0, momentum=0, weight_decay=0, clip=0.01, label_smoothing=0
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 7))
    before = _weights(model)
    assert (_weights(_train(recipe, model).model) - before).norm() == pytest.approx(0.01, rel=1e-3)


def test_average_follows_the_weights_with_its_decay() -> None:
    """One step, so the average of the first two states is the second: it starts at the first update."""
    data, decay = toy_data(), 0.75
    plain = Recipe(epochs=1, batch_size=48, warmup_epochs=0)
    snapshots: list[Tensor] = []

    class Watch(Classify):
        def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
            snapshots.append(model.linear.weight.detach().clone())  # type: ignore[union-attr, operator]
            return super().loss(model, inputs, targets)

    raw = _train(plain, data=data, task=Watch(0.1)).model
    averaged = _train(replace(plain, ema=decay), data=data).model
    expected = decay * snapshots[1] + (1 - decay) * raw.linear.weight
    torch.testing.assert_close(averaged.linear.weight, expected)


@pytest.mark.slow
# torch's own compiler defines script methods when it is imported.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiled_training_gives_the_same_network() -> None:
    plain = _train(SHORT, toy_net(dropout=0.0))
    compiled = _train(replace(SHORT, compile=True), toy_net(dropout=0.0))
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    torch.testing.assert_close(_weights(compiled.model), _weights(plain.model), rtol=1e-3, atol=1e-4)


def test_evaluation_may_be_rarer_but_the_last_epoch_has_one() -> None:
    history = _train(replace(SHORT, epochs=5, evaluate_every=2)).history
    assert ["test_top1" in row for row in history] == [False, True, False, True, True]


def test_logs_hold_steps_and_epochs(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = _train(folder=tmp_path, log=("jsonl", "tensorboard"))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["event"] == "step"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    assert [row["step"] for row in steps] == list(range(2, 25, 2))
    assert [{k: v for k, v in row.items() if k != "event"} for row in epochs] == result.history
    first = [row["loss"] for row in steps if row["step"] <= 6]
    assert math.fsum(first) / 3 == pytest.approx(result.history[0]["train_loss"])
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = board.Scalars("epoch/test_top1")
    assert [scalar.step for scalar in scalars] == [6, 12, 18, 24]
    assert [scalar.value for scalar in scalars] == pytest.approx([row["test_top1"] for row in result.history])


def test_without_a_terminal_there_is_a_line_an_epoch(capfd: pytest.CaptureFixture[str]) -> None:
    _train(progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("epoch 2/4  loss ")
    assert "top1" in lines[1]
    assert "images/s" in lines[1]
    assert "ETA" in lines[1]
    _train(progress=False)
    assert capfd.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_bar(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("leanconv.training.progress._REFRESH", 0.0)
    _train(progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    for part in ("epoch 3/4", "/6", "loss ", "lr 0.1", "images/s ETA 0:"):
        assert part in err
    assert "epoch 4/4  loss " in err


class _NotANumberAt(Classify):
    """A loss that is not finite from a certain step on."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        self.left -= 1
        return super().loss(model, inputs, targets) * (math.nan if self.left <= 0 else 1.0)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    good = _train(replace(SHORT, epochs=2), folder=tmp_path / "good")
    with pytest.raises(UserError, match=r"loss is nan at step 15 .*epoch 3.*holds the last good state, of epoch 2"):
        _train(folder=tmp_path / "bad", task=_NotANumberAt(15))
    resumed = _train(replace(SHORT, epochs=2), folder=tmp_path / "bad", resume=True, task=Classify())
    assert len(resumed.history) == 2
    assert torch.isfinite(_weights(resumed.model)).all()
    assert good.output_dir == tmp_path / "good"


def test_weights_that_overflow_in_the_last_step_are_never_saved(tmp_path: Path) -> None:
    class Explode(Classify):
        def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
            loss = super().loss(model, inputs, targets)
            loss.register_hook(lambda gradient: gradient * math.inf)
            return loss

    with pytest.raises(UserError, match="after step 1"):
        _train(Recipe(epochs=1, batch_size=96, warmup_epochs=0), folder=tmp_path, task=Explode())
    assert not list(tmp_path.glob("*.safetensors"))


def test_interrupt_says_how_to_go_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(folder=tmp_path, on_progress=stop, progress=True)
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("Interrupted in epoch 3;")
    assert last.endswith("last.safetensors holds epoch 2: continue with resume=True.")
    assert len(_train(folder=tmp_path, resume=True).history) == 4


def test_misfits_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="num_classes=7"):
        _train(model=toy_net(classes=6), folder=folder)
    with pytest.raises(UserError, match="does not take the images"):
        _train(model=toy_net(channels=1), folder=folder)
    with pytest.raises(UserError, match=r"augment\.filp .*did you mean 'flip'"):
        _train(replace(SHORT, augment={"filp": True}), folder=folder)
    with pytest.raises(UserError, match="log='wandb'"):
        _train(log=("wandb",), folder=tmp_path / "other")
    with pytest.raises(UserError, match="resume=True needs an output_dir"):
        _train(resume=True)
    assert not folder.exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be created"):
        _train(folder=tmp_path / "file" / "run")


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta"])
def test_device_that_computes_nothing_is_named(device: str) -> None:
    with pytest.raises(UserError, match=f"`device` '{device}' (is not available|holds shapes)"):
        _train(device=device)
    with pytest.raises(UserError, match=f"`device` '{device}' (is not available|holds shapes)"):
        evaluate(toy_net(), toy_data(), device=device)


def test_recipe_changes_the_augmentation_of_the_data() -> None:
    plain, flipped = _train(), _train(replace(SHORT, augment={"flip": True}))
    assert plain.last["train_loss"] < flipped.last["train_loss"], "columns mirrored left to right have other labels"
