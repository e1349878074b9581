"""Picture files enlarged: what is written, when, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from enlargers import AtTheEnd, Small
from picture_files import read_png16, smooth, write, write_png16
from PIL import Image

import leanconv
from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.superres import Bicubic
from leanconv.upscaling import Upscaler, load_network, upscale


def test_a_file_holds_what_the_upscaler_returns(tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.png"), tmp_path / "b.png"
    network = Small()
    record = upscale(source, target, network, tile=16, device="cpu")
    expected = Upscaler(network, device="cpu")(smooth(20, 30, 3))
    with Image.open(target) as opened:
        assert np.abs(np.asarray(opened).astype(int) - expected).max() <= 1
    assert (record.size, record.enlarged_size, record.bits, record.tiles) == ((30, 20), (60, 40), 8, 4)
    assert record.to_dict()["target"] == str(target)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_kept(tmp_path: Path, channels: int) -> None:
    pixels = smooth(9, 14, channels, np.uint16) | 1
    record = upscale(write_png16(tmp_path / "a.png", pixels), tmp_path / "b.png", Bicubic(), device="cpu")
    assert record.bits == 16
    assert np.array_equal(read_png16(tmp_path / "b.png"), Upscaler(Bicubic(), device="cpu")(pixels))


def test_16_bits_are_rounded_to_8_where_the_format_has_no_more(tmp_path: Path) -> None:
    grey = np.full((9, 14, 3), 257 * 100 + 120, np.uint16)
    record = upscale(write_png16(tmp_path / "a.png", grey), tmp_path / "b.webp", Bicubic(), quality=100, device="cpu")
    assert record.bits == 8
    with Image.open(tmp_path / "b.webp") as opened:
        assert (np.asarray(opened) == 100).all()


def test_weights_are_those_of_the_file(tmp_path: Path) -> None:
    network = create_model("vdsr", depth=3, width=4)
    leanconv.save(network, tmp_path / "w.safetensors")
    source = write(tmp_path / "a.png")
    upscale(source, tmp_path / "b.png", network, device="cpu")
    upscale(source, tmp_path / "c.png", str(tmp_path / "w.safetensors"), device="cpu")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    again = load_network("vdsr", tmp_path / "w.safetensors", 2, depth=3, width=4)
    for mine, others in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, others)


def test_networks_for_one_scale_are_made_for_the_one_asked_for(tmp_path: Path) -> None:
    leanconv.save(create_model("lean_sr", scale=3, width=4, depth=1), tmp_path / "w.safetensors")
    assert load_network("lean_sr", tmp_path / "w.safetensors", 3, width=4, depth=1).scales == (3,)
    with pytest.raises(UserError, match="do not fit"):
        load_network("lean_sr", tmp_path / "w.safetensors", 2, width=4, depth=1)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_source_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    source = write(tmp_path / "a.png")
    before = source.read_bytes()
    (tmp_path / "link.png").symlink_to(source)
    os.link(source, tmp_path / "hard.png")
    for name in ("a.png", "link.png", "hard.png", f"../{tmp_path.name}/a.png"):
        with pytest.raises(UserError, match="is the picture that is read"):
            upscale(source, tmp_path / name, Small(), overwrite=overwrite)
    assert source.read_bytes() == before


def test_other_files_are_replaced_on_request_only(tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.png"), write(tmp_path / "b.png", 5, 5)
    before = target.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        upscale(source, target, Small())
    assert target.read_bytes() == before
    upscale(source, target, Small(), overwrite=True, device="cpu")
    with Image.open(target) as opened:
        assert opened.size == (60, 40)


def test_what_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.png"), write(tmp_path / "b.png", 5, 5)
    before = target.read_bytes()

    def interrupt(done: int, total: int) -> None:
        assert sorted(file.name for file in tmp_path.iterdir() if not file.name.startswith(".")) == ["a.png", "b.png"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale(source, target, Small(), tile=16, overwrite=True, device="cpu", on_tile=interrupt)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "b.png"]
    assert target.read_bytes() == before


def test_what_cannot_be_encoded_leaves_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "a.png", 10, 9000)
    with pytest.raises(UserError, match="could not be written"):
        upscale(source, tmp_path / "b.webp", Bicubic(), device="cpu")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("b.gif", {}, "must end in one of .png"),
        ("b", {}, "must end in one of .png"),
        ("nowhere/b.png", {}, r"nowhere/b.png' cannot be written \(No such file or directory\)"),
        ("a.png/b.png", {}, "cannot be written"),
        ("b.png", {"quality": 0}, "`quality`"),
        ("b.png", {"scale": 5}, "`scale` 5"),
        ("b.png", {"weights": "w.safetensors"}, "goes with the name"),
        ("b.png", {"model": "vdsr"}, "`weights` of 'vdsr' are missing"),
        ("b.png", {"model": "vdrs"}, "did you mean 'vdsr'"),
        ("b.png", {"model": "vdsr", "weights": "none.safetensors"}, "none.safetensors does not exist"),
        ("b.png", {"model": "none.safetensors"}, "none.safetensors does not exist"),
        ("b.png", {"model": "none.safetensors", "weights": "none.safetensors"}, "do not apply"),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, target: str, options: dict[str, object], said: str) -> None:
    source = write(tmp_path / "a.png")
    with pytest.raises(UserError, match=said):
        upscale(source, tmp_path / target, **({"model": Small(), "device": "cpu"} | options))
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_transparency_is_not_lost(tmp_path: Path) -> None:
    source = write(tmp_path / "a.png", mode="RGBA")
    with pytest.raises(UserError, match="transparency"):
        upscale(source, tmp_path / "b.jpg", Small(), device="cpu")


def test_a_folder_that_may_not_be_written_to_is_known_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "a.png")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("leanconv.deployment.files.tempfile.mkdtemp", forbidden)
    with pytest.raises(UserError, match="Permission denied"):
        upscale(source, tmp_path / "b.png", Small(), device="cpu", on_tile=lambda *_: pytest.fail("work was done"))


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyvips", None)
    with pytest.raises(UserError, match=r'pip install "leanconv\[superres\]"'):
        upscale(tmp_path / "a.png", tmp_path / "b.png", Small())


def test_more_than_the_memory_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "a.png")

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("leanconv.upscaling.upscaler.np.empty", exhausted)
    with pytest.raises(UserError, match="60×40 pixels"):
        upscale(source, tmp_path / "b.png", AtTheEnd(), device="cpu")


def test_vdsr_adds_what_bicubic_lost(data_folder: Path, tmp_path: Path) -> None:
    """The published weights on a picture of Set5, halved by MATLAB: as good as published, by plain arithmetic."""
    pytest.importorskip("datasets")
    from datasets import load_dataset

    folder = data_folder / "superres"

    def rows(name: str) -> list[dict[str, object]]:
        return list(load_dataset("parquet", data_files=str(folder / name), split="train"))

    original = rows("set5.parquet")[2]["image"]
    small = next(row["image"] for row in rows("set5_lr_matlab.parquet") if row["name"] == "x2_img_003")
    small.save(tmp_path / "small.png")

    def luma(picture: Image.Image) -> np.ndarray:
        return (np.asarray(picture.convert("RGB")) @ np.array([65.481, 128.553, 24.966]) / 255 + 16).round()[2:-2, 2:-2]

    def psnr(target: Path) -> float:
        with Image.open(target) as opened:
            error = luma(opened) - luma(original.crop((0, 0, *opened.size)))
        return float(10 * np.log10(255**2 / (error**2).mean()))

    upscale(tmp_path / "small.png", tmp_path / "bicubic.png", Bicubic(), device="cpu")
    weights = data_folder / "weights/vdsr_291.safetensors"
    upscale(tmp_path / "small.png", tmp_path / "vdsr.png", "vdsr", weights=weights, device="cpu")
    assert psnr(tmp_path / "bicubic.png") == pytest.approx(27.43, abs=0.05)
    assert psnr(tmp_path / "vdsr.png") > psnr(tmp_path / "bicubic.png") + 4
