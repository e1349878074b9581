"""``leanconv compress`` on scikit-learn's digits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import leanconv as lc
from leanconv.measurement import count_macs
from test_cli import invoke

ARGUMENTS = ("compress", "resnet20_cifar", "--data", "digits", "--width", "4", "--images", "40", "--positions", "10")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(lc.create_model("resnet20_cifar", base_width=4, in_channels=1).state_dict(), path)
    return str(path)


def test_one_command_compresses_fine_tunes_and_saves(weights: str, tmp_path: Path) -> None:
    path = tmp_path / "lean.safetensors"
    result = invoke(
        *ARGUMENTS, "--weights", weights, "--macs", "0.6", "--batch-norm", "--finetune-epochs", "1",
        "--set", "batch_size=512", "-o", str(path), "--json",
    )  # fmt: skip
    record = json.loads(result.stdout)
    assert set(record["accuracy"]) == {"original", "compressed", "finetuned"}
    assert record["recipe"]["epochs"] == 1
    lean = lc.load(path)
    original = lc.create_model("resnet20_cifar", base_width=4, in_channels=1)
    size = (1, 1, 32, 32)
    assert count_macs(lean, size) <= 0.6 * count_macs(original, size)
    assert [file.name for file in tmp_path.iterdir()] == ["lean.safetensors"]


def test_the_plan_is_printed_for_people(weights: str, tmp_path: Path) -> None:
    result = invoke(*ARGUMENTS, "--weights", weights, "--params", "0.7", "-o", str(tmp_path / "lean.safetensors"))
    assert "stages.2.2.conv2" in result.stdout
    assert "Test accuracy: original" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "One budget of"),
        (("--macs", "1.5"), "in (0, 1], got 1.5"),
        (("--macs", "0.5", "-o", "no/where.safetensors"), "must be a .safetensors file in a folder that exists"),
        (("--macs", "0.5", "--set", "lr=1"), "give --finetune-epochs too"),
    ],
)
def test_mistakes_end_in_one_sentence(
    arguments: tuple[str, ...], sentence: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*ARGUMENTS, "--weights", weights, *arguments, code=2)
    assert sentence in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())
