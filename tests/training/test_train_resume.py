import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_images import toy_data, toy_net

from leanconv.training import Recipe, TrainResult, train
from leanconv.training.checkpoint import LAST, Checkpoint, load_checkpoint

SCRIPT = Path(__file__).with_name("toy_run.py")
FULL = Recipe(epochs=4, batch_size=16, warmup_epochs=1, lr=0.01, augment={"crop_padding": 1})


def _start(folder: Path, stall: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(stall)], stderr=subprocess.DEVNULL)


def _same_state(one: Checkpoint, other: Checkpoint) -> None:
    assert one.epoch == other.epoch
    for group in ("model", "ema", "optimizer"):
        ours, theirs = getattr(one, group), getattr(other, group)
        assert list(ours) == list(theirs)
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), name


def _log(folder: Path) -> list[dict[str, float]]:
    timing = ("seconds", "images_per_second")
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in timing} for row in rows]


def test_a_run_killed_mid_epoch_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    """Dropout, augmentation, averaging and momentum are all at work."""
    whole = _start(tmp_path / "whole")
    broken = _start(tmp_path / "broken", stall=16)  # in the third epoch, of six steps
    deadline = time.monotonic() + 120
    while not (tmp_path / "broken.mark").exists():
        assert broken.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(broken.pid, signal.SIGKILL)
    assert broken.wait() == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "broken" / LAST).epoch == 2
    assert _log(tmp_path / "broken")[-1]["step"] == 14, "the log had begun the third epoch"
    assert _start(tmp_path / "broken").wait() == 0
    assert whole.wait() == 0

    one, other = (load_checkpoint(tmp_path / name / LAST) for name in ("whole", "broken"))
    assert one.epoch == 4
    assert one.model
    assert one.ema
    assert one.optimizer
    _same_state(one, other)
    assert _log(tmp_path / "whole") == _log(tmp_path / "broken"), "rows of the broken epoch are not repeated"


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "channels_last": True, "precision": "bf16", "ema": 0.5},
        {"momentum": 0.0},
        {"nesterov": True, "clip": 0.1, "accumulate": 2, "evaluate_every": 3},
        {"schedule": "step", "step_epochs": [2], "batch_size": 1000},
    ],
    ids=lambda change: "-".join(change),
)
def test_any_recipe_resumes_bit_for_bit(tmp_path: Path, change: dict[str, Any]) -> None:
    recipe = replace(FULL, **change)

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    def go(folder: Path, seed: int = 0, **options: Any) -> TrainResult:
        return train(toy_net(seed), toy_data(), recipe, folder, resume=True, log=(), progress=False, **options)

    whole = go(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "broken", on_progress=stop)
    resumed = go(tmp_path / "broken", seed=9)
    _same_state(*(load_checkpoint(tmp_path / name / LAST) for name in ("whole", "broken")))
    for ours, theirs in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert [row["train_loss"] for row in whole.history] == [row["train_loss"] for row in resumed.history]
