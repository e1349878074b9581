"""``leanconv upscale``: one picture, many pictures, and what goes wrong."""

import json
from pathlib import Path

import pytest
from picture_files import write
from PIL import Image
from typer.testing import CliRunner

import leanconv
from leanconv.cli import app
from leanconv.models import create_model


@pytest.fixture
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    leanconv.save(create_model("vdsr", depth=3, width=4), path)
    return str(path)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, ["upscale", *arguments, "--device", "cpu"])
    assert result.exit_code == code, result.output
    return result


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in sorted(folder.iterdir()):
        with Image.open(path) as opened:
            found[path.name] = opened.size
    return found


def test_one_picture(tmp_path: Path, network: str) -> None:
    write(tmp_path / "a.jpg")
    text = invoke("a.jpg", "-o", "b.png", "--model", network, "--scale", "3", "--tile", "16").stdout
    assert text.startswith("a.jpg (30×20) to b.png (90×60), 8 bits, in 4 pieces")
    assert sizes(tmp_path) == {"a.jpg": (30, 20), "b.png": (90, 60)}


def test_a_name_with_weights_and_options(tmp_path: Path, network: str) -> None:
    write(tmp_path / "a.jpg")
    options = ("--model", "vdsr", "--weights", network, "--set", "depth=3", "--set", "width=4")
    invoke("a.jpg", "-o", "b.png", *options)
    invoke("a.jpg", "-o", "c.png", "--model", network)
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_a_folder_into_a_folder(tmp_path: Path, network: str) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.PNG", "c.gif", ".hidden.png"):
        write(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    record = json.loads(invoke("in", "-o", "new/out", "--model", network, "--json").stdout)
    expected = {"a_x2.jpg": (60, 40), "b_x2.PNG": (60, 40), "c_x2.png": (60, 40)}
    assert sizes(tmp_path / "new/out") == expected
    assert [picture["target"] for picture in record["pictures"]] == [f"new/out/{name}" for name in expected]
    assert record["failures"] == {}
    invoke("in", "-o", "webp", "--model", network, "--format", "webp", "--quality", "80")
    assert set(sizes(tmp_path / "webp")) == {"a_x2.webp", "b_x2.webp", "c_x2.webp"}


def test_of_several_the_others_are_done_and_failures_listed(tmp_path: Path, network: str) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / "z.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "text.jpg").write_text("not a picture")
    write(tmp_path / "a.jpg")
    names = ("a.png", "broken.png", "text.jpg", "missing.png", "a.jpg", "z.png")
    arguments = (*names, "-o", "out", "--model", network, "--format", "png")
    result = invoke(*arguments, code=2)
    assert set(sizes(tmp_path / "out")) == {"a_x2.png", "z_x2.png"}
    lines = result.stderr.splitlines()
    assert lines[0] == "Error: 4 of 6 pictures were not written:"
    expected = ("broken.png is not a whole", "text.jpg is not a picture", "missing.png does not", "holds a.png")
    for line, said in zip(lines[1:], expected, strict=True):
        assert said in line
    again = json.loads(invoke(*arguments, "--json", code=2).stdout)
    assert again["pictures"] == []
    assert "is there already" in again["failures"]["z.png"]
    assert len(json.loads(invoke(*arguments, "--overwrite", "--json", code=2).stdout)["pictures"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.png", "-o", "a.png", "--overwrite"), "is the picture that is read"),
        (("a.png", "-o", "b.png"), "is there already"),
        (("b.png", "-o", "c.png"), "is not a picture"),
        (("a.png", "-o", "c.png", "--scale", "5"), "2 or 3 or 4 would work"),
        (("a.png", "-o", "c.png", "--scale", "1"), "--scale 1 is out of range"),
        (("a.png", "-o", "c.png", "--quality", "101"), "--quality 101 is out of range"),
        (("a.png", "-o", "c.png", "--format", "png"), "--format goes with a folder"),
        (("a.png", "-o", "empty", "--format", "pgn"), "did you mean 'png'"),
        (("a.png", "b.png", "-o", "b.png"), "name a folder for several"),
        (("a.png", "b.png", "-o", "a.png/out"), "cannot be made a folder"),
        (("empty", "-o", "out"), "holds no pictures"),
        (("a.png", "-o", "nowhere/c.png"), "cannot be written"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path: Path, network: str, arguments: tuple[str, ...], said: str) -> None:
    write(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    result = invoke(*arguments, "--model", network, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", "empty"}
    assert not list((tmp_path / "empty").iterdir())


def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("leanconv.upscaling.files.write_picture", interrupt)
    result = invoke("a.png", "-o", "b.png", "--model", network, code=130)
    assert "Interrupted" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
