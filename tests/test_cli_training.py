"""The verbs that train: on scikit-learn's digits, as small as it gets."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from leanconv.comparison import Comparison
from leanconv.comparison import run as run_module
from test_cli import COMMAND, invoke, run

TINY = ("--data", "digits", "--width", "2", "--epochs", "1", "--set", "warmup_epochs=0", "--set", "batch_size=256")


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Several threads on tiny layers only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("cli") / "run"
    result = invoke("train", "ran26", *TINY, "-o", str(folder), "--json")
    assert "epoch 1/1" in result.stderr
    return folder, json.loads(result.stdout)


def test_train_prints_json_alone_and_writes_a_checkpoint(trained):
    folder, record = trained
    assert Path(record["weights"]).parent == folder
    assert Path(record["weights"]).exists()
    assert record["recipe"]["batch_size"] == 256
    assert record["model"] == {"name": "ran26", "kwargs": {"num_classes": 10, "in_channels": 1, "base_width": 2}}
    assert 0 <= record["last"]["test_top1"] <= 1


def test_evaluate_repeats_the_accuracy_of_training(trained):
    _, record = trained
    arguments = ("evaluate", "ran26", "--width", "2", "--weights", record["weights"], "--data", "digits")
    metrics = json.loads(invoke(*arguments, "--json").stdout)
    assert metrics["top1"] == pytest.approx(record["last"]["test_top1"])
    assert metrics["loss"] == pytest.approx(record["last"]["test_loss"], rel=1e-5)
    assert f"{100 * metrics['top1']:.2f} %" in invoke(*arguments).stdout


def test_evaluate_normalises_as_asked(trained):
    _, record = trained
    arguments = ("evaluate", "ran26", "--width", "2", "--weights", record["weights"], "--data", "digits", "--json")
    own, half, same = (
        json.loads(invoke(*arguments, *extra).stdout)["loss"]
        for extra in ((), ("--normalisation", "half"), ("--mean", "0.5", "--std", "0.5"))
    )
    assert half == same
    assert half != own


def test_evaluate_refuses_other_weights(trained):
    _, record = trained
    arguments = ("--weights", record["weights"], "--data", "digits", "--width", "3")
    assert "do not fit" in invoke("evaluate", "ran26", *arguments, code=2).stderr


def test_a_loss_that_is_no_number_is_null_in_json(trained, tmp_path):
    _, record = trained
    tensors = load_file(record["weights"])
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    weights["head.fc.bias"].fill_(torch.nan)
    save_file(weights, tmp_path / "nan.safetensors")
    arguments = ("evaluate", "ran26", "--width", "2", "--weights", str(tmp_path / "nan.safetensors"))
    assert json.loads(invoke(*arguments, "--data", "digits", "--json").stdout)["loss"] is None


def test_train_does_not_destroy_a_run(trained):
    folder, _ = trained
    said = invoke("train", "ran26", *TINY, "-o", str(folder), code=2).stderr
    assert "--resume" in said
    assert "--overwrite" in said


def test_train_resumes(trained):
    folder, _ = trained
    result = invoke("train", "ran26", *TINY, "--epochs", "2", "--resume", "-o", str(folder))
    assert "epoch 2/2" in result.stderr
    assert "epoch 1/2" not in result.stderr
    assert "after epoch 2" in result.stdout


def test_compare_writes_a_report_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "ROUNDS", 2)
    arguments = ("compare", "ran26", "resnet26_cifar", *TINY, "--seeds", "1", "--threads", "1", "-o", str(tmp_path))
    arguments += ("--engines", "eager, torch.export")
    first = invoke(*arguments)
    assert "(baseline)" in first.stdout
    assert "Latency, folded for inference" in first.stdout
    assert "trained in" in first.stderr
    assert {"report.json", "report.html", "pareto.png"} <= {path.name for path in tmp_path.iterdir()}
    again = invoke(*arguments, "--json")
    assert "trained in" not in again.stderr
    record = Comparison.from_dict(json.loads(again.stdout))
    assert record == Comparison.load(tmp_path / "report.json")
    assert record.baseline == "resnet26_cifar"
    page = (tmp_path / "report.html").read_text()
    assert "leanconv compare ran26 resnet26_cifar --data digits --width 2 --epochs 1 --seeds 1 --threads 1" in page
    assert "--set batch_size=256" in page
    other = invoke(*arguments, "--width", "3", code=2)
    assert "width was 2, now 3" in other.stderr


def test_ctrl_c_says_how_to_go_on(tmp_path):
    """In a process of its own, interrupted by a real signal after its first epoch."""
    folder = tmp_path / "run"
    endless = ("train", "ran26", "--data", "digits", "--width", "2", "--epochs", "5000", "-o", str(folder))
    process = subprocess.Popen(
        [*COMMAND, *endless],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell that starts the tests in the background has them, and their children, ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "last.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1].startswith("Interrupted: the same command with --resume goes on")
    assert "Traceback" not in stderr


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch cannot run in several processes")
def test_torchrun_prints_once(tmp_path):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    arguments = ("-m", "leanconv", "train", "ran26", *TINY, "-o", str(tmp_path / "run"), "--json")
    done = subprocess.run(
        [*launcher, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["last"]["epoch"] == 1
    assert sum(line.startswith("epoch ") for line in done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_evaluate_real_weights(data_folder):
    """Real weights of another origin, in a process of its own: 91.73 % is their measured accuracy."""
    weights = data_folder / "weights" / "resnet20_cifar10.safetensors"
    folder = data_folder / "cifar10"
    arguments = ("evaluate", "resnet20_cifar", "--weights", str(weights), "--data", "cifar10", "--json")
    done = run(*arguments, "--data-folder", str(folder), "--normalisation", "imagenet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top1"] == 0.9173
