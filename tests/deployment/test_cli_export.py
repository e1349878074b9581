"""``leanconv export``: what it writes, prints and refuses."""

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leanconv.cli import app


def invoke(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, ["export", *arguments])
    assert result.exit_code == code, result.output
    return result


def test_a_network_is_folded_exported_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    printed = invoke("ran26", "--width", "4", "-o", str(path), "--threads", "1", "--json").stdout
    record = json.loads(printed)
    assert record["folded"] is True
    assert record["report"]["engine"] == "torch.export"
    assert record["report"]["input_shapes"] == [[1, 3, 32, 32]]
    assert all(case["relative"] <= case["tolerance"] for case in record["report"]["parity"])
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt2"]


def test_int8_with_real_images_reports_accuracy(tmp_path: Path) -> None:
    for package in ("onnxscript", "onnxruntime", "sklearn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    path = tmp_path / "net.onnx"
    arguments = ("--width", "4", "-o", str(path), "--data", "digits", "--images", "64", "--int8", "--batch-size", "2")
    text = invoke("resnet26_cifar", *arguments).stdout
    assert "int8, for onnxruntime" in text
    assert "Top-1: eager" in text
    assert "Verified at batch 2, 4" in text
    assert "as the same export in floating point" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-o", "net.tflite"), "suffix that no export writes"),
        (("-o", "nowhere/net.pt2"), "folder that exists"),
        (("-o", "net.pt2", "--int8"), "--data too"),
        (("-o", "net.pt2", "--weights", "none.safetensors"), "does not exist"),
    ],
)
def test_mistakes_end_in_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("ran26", "--width", "4", *arguments, code=2)
    assert sentence in result.stderr
    assert not list(tmp_path.iterdir())
