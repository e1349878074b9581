"""The command line: what it prints where, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import leanconv
from leanconv.cli import app
from leanconv.cli.options import numbers, overrides
from leanconv.errors import UserError
from leanconv.models import create_model, list_models

COMMAND = (sys.executable, "-m", "leanconv")


def invoke(*arguments: str, code: int = 0):
    """Run the command line in this process."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


def run(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"} | variables
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, cwd=cwd, capture_output=True, text=True, timeout=200, check=False
    )


def test_help_names_every_verb_and_imports_nothing_heavy():
    program = """if True:
        import sys
        from leanconv.cli import app
        try:
            app(["--help"])
        except SystemExit as end:
            heavy = {"torch", "accelerate", "datasets", "matplotlib", "jinja2", "omegaconf", "sklearn", "PIL"}
            sys.exit(end.code or str(sorted(heavy & set(sys.modules))))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr.strip() == "[]"
    for verb in ("list", "measure", "train", "evaluate", "compare", "export", "upscale"):
        assert f" {verb} " in done.stdout


@pytest.mark.parametrize("verb", ["list", "measure", "train", "evaluate", "compare", "export", "upscale"])
def test_every_verb_explains_itself_and_takes_json(verb):
    assert "--json" in invoke(verb, "--help").stdout


def test_without_a_verb_the_help_is_shown():
    assert "compare" in invoke().stdout


def test_version():
    assert invoke("--version").stdout.strip() == f"leanconv {leanconv.__version__}"


def test_list_shows_sizes_and_paper():
    text = invoke("list", "ran26").stdout
    for part in ("ran26", "9.20 M", "671 M", "2301.04631"):
        assert part in text


def test_list_as_json():
    rows = json.loads(invoke("list", "*26*", "--json").stdout)
    assert [row["model"] for row in rows] == list_models("*26*")
    row = next(row for row in rows if row["model"] == "resnet26_cifar")
    assert (row["params"], row["macs"]) == (40_907_650, 2_554_344_960)


def test_measure_as_json_agrees_with_the_model():
    arguments = (
        "measure",
        "ran26",
        "--width",
        "8",
        "--input-size",
        "2,1,16,16",
        "--latency",
        "--threads",
        "1",
        "--json",
    )
    record = json.loads(invoke(*arguments).stdout)
    model = create_model("ran26", base_width=8, in_channels=1)
    assert record["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert record["input_shapes"] == [[2, 1, 16, 16]]
    assert record["latency"]["batch"] == 2
    assert sum(layer["macs"] for layer in record["layers"]) == record["macs"]


def test_measure_shows_stages_and_on_request_layers():
    short = invoke("measure", "ran26", "--width", "4").stdout
    long = invoke("measure", "ran26", "--width", "4", "--layers").stdout
    assert "peak memory" in short
    assert len(long.splitlines()) > len(short.splitlines()) + 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lst",), "Did you mean 'list'?"),
        (("list", "rna26"), "did you mean 'ran26'"),
        (("measure",), "Missing argument"),
        (("measure", "ran62"), "did you mean 'ran26'"),
        (("measure", "ran26", "--wdith", "3"), "--wdith"),
        (("measure", "ran26", "--width", "0"), "--width 0 is out of range: give 1 to 4096"),
        (("measure", "ran26", "--width", "many"), "--width"),
        (("measure", "ran26", "--input-size", "1,3,big"), "--input-size '1,3,big' is not a list of numbers"),
        (("measure", "ran26", "--input-size", "3,32"), "give batch, channels, height and width"),
        (("measure", "ran26", "--dtype", "float3"), "did you mean 'float32'"),
        (("measure", "resnet20_cifar", "--width", "8", "--threads", "0"), "--threads 0 is out of range"),
        (("train", "ran26"), "--data"),
        (("train", "ran62", "--data", "digits"), "did you mean 'ran26'"),
        (("train", "ran26", "--data", "digitss"), "did you mean 'digits'"),
        (("train", "ran26", "--data", "/nowhere/at/all"), "/nowhere/at/all does not exist"),
        (("train", "ran26", "--data", "digits", "--epochs", "0"), "--epochs 0 is out of range"),
        (("train", "ran26", "--data", "digits", "--batch-size", "-1"), "--batch-size -1 is out of range"),
        (("train", "ran26", "--data", "digits", "--recipe", "ran_cifra"), "ran_cifar"),
        (("train", "ran26", "--data", "digits", "--set", "lrr=1"), "did you mean 'lr'"),
        (("train", "ran26", "--data", "digits", "--set", "lr"), "key=value"),
        (("train", "ran26", "--data", "digits", "--precision", "int3"), "fp32"),
        (("evaluate", "ran26", "--weights", "/nowhere.safetensors", "--data", "digits"), "/nowhere.safetensors"),
        (("evaluate", "ran26", "--weights", "w", "--data", "digits", "--mean", "0.5"), "--mean and --std go together"),
        (("evaluate", "ran26", "--weights", "w", "--data", "digits", "--normalisation", "imagnet"), "'imagenet'"),
        (("compare", "ran26", "--data", "digits", "--seeds", "0"), "--seeds 0 is out of range"),
        (("compare", "ran26", "ran26", "--data", "digits"), "'ran26' 2 times"),
        (("compare", "ran26", "axial26", "--data", "digits", "--baseline", "axial"), "did you mean 'axial26'"),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments, code=2)
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_mistakes_in_a_process_of_its_own():
    done = run("measure", "ran62")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: Unknown model 'ran62': did you mean 'ran26' or 'ran152' or 'ran50'?\n"
    assert "Traceback" not in done.stderr


def test_comparison_under_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "one process" in invoke("compare", "ran26", "--data", "digits", code=2).stderr


def test_other_processes_than_the_first_are_silent(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert invoke("list", "ran26").output == ""
    assert invoke("list", "ran26", "--json").output == ""
    assert invoke("measure", "ran62", code=2).output == ""


def test_missing_extra_is_named_before_any_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setattr("leanconv.comparison.extra.find_spec", lambda name: None)
    assert 'pip install "leanconv[plot]"' in invoke("compare", "ran26", "--data", "digits", code=2).stderr


def test_overrides_follow_each_other():
    assert overrides(["lr=0.1", "augment.flip=false"], epochs=3, lr=None) == [
        "lr=0.1",
        "augment.flip=false",
        "epochs=3",
    ]


def test_numbers():
    assert numbers("--mean", "0.5,0.25", float) == (0.5, 0.25)
    with pytest.raises(UserError, match="--mean"):
        numbers("--mean", "0.5;0.25", float)
