import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from leanconv.training.checkpoint import LAST, load_checkpoint

SCRIPT = Path(__file__).with_name("toy_ddp.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def _run(launcher: tuple[str, ...], folder: Path, accumulate: int) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*launcher, str(SCRIPT), str(folder), str(accumulate)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch cannot run in several processes")
def test_two_processes_have_the_loss_curve_of_one(tmp_path: Path) -> None:
    """In float64, where only the order of additions differs: batch norm, clipping and averaging included."""
    _run((sys.executable,), tmp_path / "one", 1)
    said = _run(TORCHRUN, tmp_path / "two", 1)
    one, two = (load_checkpoint(tmp_path / name / LAST) for name in ("one", "two"))
    curves = []
    for name in ("one", "two"):
        rows = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        curves.append([row["loss"] for row in rows if row["event"] == "step"])
    assert len(curves[0]) == 18
    assert_close(curves[1], curves[0], rtol=1e-9, atol=0)
    for entry in ("train_loss", "test_loss", "test_top1", "test_top5"):
        assert_close(two.history[-1][entry], one.history[-1][entry], rtol=1e-9, atol=0)
    for name, value in one.model.items():
        assert_close(two.model[name], value, rtol=1e-8, atol=1e-9, msg=name)
    for name, value in one.ema.items():
        assert_close(two.ema[name], value, rtol=1e-8, atol=1e-9, msg=name)
    sums = [json.loads((tmp_path / "two" / f"sum{rank}.json").read_text()) for rank in (0, 1)]
    assert sums[0] == sums[1], "every process ends with the same weights"
    assert sum(line.startswith("epoch ") for line in said.splitlines()) == 3, "only the first process reports"


@pytest.mark.slow
def test_two_processes_accumulate(tmp_path: Path) -> None:
    """Batch norm sees the same parts of a batch only if they are the same images, so losses agree loosely."""
    _run((sys.executable,), tmp_path / "one", 2)
    _run(TORCHRUN, tmp_path / "two", 2)
    one, two = (load_checkpoint(tmp_path / name / LAST) for name in ("one", "two"))
    assert two.history[-1]["train_loss"] == pytest.approx(one.history[-1]["train_loss"], rel=0.1)
