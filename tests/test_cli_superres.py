"""``leanconv train`` and ``leanconv evaluate`` of networks that enlarge images."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from test_cli import invoke

TINY = ("--epochs", "1", "--scale", "2", "--set", "superres.patches=32", "--set", "superres.patch_size=16")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the default photographs; the rate is too small to change anything but the last bits."""
    folder = tmp_path_factory.mktemp("superres") / "run"
    said = invoke("train", "lean_sr", *TINY, "--lr", "1e-9", "-o", str(folder))
    assert "Test PSNR x2 3" in said.stdout
    assert "patches/s" in said.stderr
    return folder


def test_evaluate_prints_what_training_found(run: Path) -> None:
    arguments = ("evaluate", "lean_sr", "--weights", str(run / "last.safetensors"))
    found = json.loads(invoke(*arguments, "--json").stdout)
    assert found["model"] == {"name": "lean_sr", "kwargs": {"scale": 2}}
    bicubic = json.loads(invoke("evaluate", "bicubic", "--scale", "2", "--json").stdout)
    assert found["psnr_x2"] == pytest.approx(bicubic["psnr_x2"], abs=0.1)
    assert f"x2 {found['psnr_x2']:.2f} dB / {found['ssim_x2']:.4f}" in invoke(*arguments).stdout


def test_training_goes_on_and_is_not_destroyed(run: Path) -> None:
    assert "--resume" in invoke("train", "lean_sr", *TINY, "-o", str(run), code=2).stderr
    again = invoke("train", "lean_sr", *TINY, "--lr", "1e-9", "--epochs", "2", "--resume", "-o", str(run), "--json")
    assert json.loads(again.stdout)["last"]["epoch"] == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "bicubic"), "there is nothing to train"),
        (("train", "vdsr", "--recipe", "ran_cifar"), "needs one with task=superres"),
        (("train", "vdsr", "--width", "3"), "--width does not apply to 'vdsr'"),
        (("train", "ran26", "--data", "digits", "--scale", "2"), "--scale does not apply to 'ran26'"),
        (("train", "lean_sr", "--scale", "2", "--scale", "3"), "--scale 3 is one too many"),
        (("train", "ran26"), "--data is missing"),
        (("evaluate", "ran26", "--data", "digits"), "--weights is missing"),
        (
            ("compare", "vdsr", "lean_sr", "--data", "digits"),
            "'vdsr' enlarges images, and digits has images to classify",
        ),
        (("evaluate", "vdsr"), "knows nothing without weights"),
        (("evaluate", "bicubic", "--data", "nowhere/at/all"), "does not exist"),
        (("evaluate", "bicubic", "--scale", "1"), "`scale` 1 is none"),
        (("evaluate", "vdsr", "--weights", "missing.safetensors"), "missing.safetensors does not exist"),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    extra = ("-o", str(tmp_path / "run")) if arguments[0] in ("train", "compare") else ()
    said = invoke(*arguments, *extra, code=2).stderr
    assert sentence in " ".join(said.split())
    assert not (tmp_path / "run").exists()


def test_images_too_small_or_unreadable_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(tmp_path / "dot.png")
    assert "'dot' of 9x9 pixels is too small" in invoke("evaluate", "bicubic", "--data", str(tmp_path), code=2).stderr
    (tmp_path / "dot.png").write_bytes(b"\x89PNG")
    assert "dot.png is not" in invoke("evaluate", "bicubic", "--data", str(tmp_path), code=2).stderr
