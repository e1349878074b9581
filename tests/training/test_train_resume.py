import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from leanconv.training.checkpoint import LAST, load_checkpoint

SCRIPT = Path(__file__).with_name("toy_run.py")


def _start(folder: Path, optimizer: str, stall: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), optimizer, str(stall)], stderr=subprocess.DEVNULL
    )


def _log(folder: Path) -> list[dict[str, float]]:
    timing = ("seconds", "images_per_second")
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in timing} for row in rows]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_killed_mid_epoch_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    """Dropout, augmentation, averaging and momentum are all at work."""
    whole = _start(tmp_path / "whole", optimizer)
    broken = _start(tmp_path / "broken", optimizer, stall=16)  # in the third epoch, of six steps
    deadline = time.monotonic() + 120
    while not (tmp_path / "broken.mark").exists():
        assert broken.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(broken.pid, signal.SIGKILL)
    assert broken.wait() == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "broken" / LAST).epoch == 2
    assert _log(tmp_path / "broken")[-1]["step"] == 14, "the log had begun the third epoch"
    assert _start(tmp_path / "broken", optimizer).wait() == 0
    assert whole.wait() == 0

    one, other = (load_checkpoint(tmp_path / name / LAST) for name in ("whole", "broken"))
    assert one.epoch == other.epoch == 4
    for group in ("model", "ema", "optimizer"):
        ours, theirs = getattr(one, group), getattr(other, group)
        assert list(ours) == list(theirs)
        assert ours
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), name
    assert _log(tmp_path / "whole") == _log(tmp_path / "broken"), "rows of the broken epoch are not repeated"
