"""Decoded images are kept, found again, and rebuilt when they are not whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from leanconv.data import ArraySplit, arrays, load
from leanconv.data.cache import cache_folder, read_cached, write_cached
from leanconv.errors import UserError

ColourFolder = Callable[..., Path]


def images_of(folder: Path, cache: Path) -> torch.Tensor:
    train = load(folder, cache_dir=cache).train
    assert isinstance(train, ArraySplit)
    return train.images


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each split that was decoded."""
    counts: list[int] = []
    decode = arrays._decoded

    def counted(stream: arrays.StreamSplit) -> torch.Tensor:
        counts.append(len(stream))
        return decode(stream)

    monkeypatch.setattr(arrays, "_decoded", counted)
    return counts


def test_images_are_decoded_once(colour_folder: ColourFolder, tmp_path: Path, decoded: list[int]) -> None:
    folder = colour_folder("train", "test")
    first = images_of(folder, tmp_path / "cache")
    assert decoded == [15]  # train and test are the same images here, so they share a file
    assert torch.equal(images_of(folder, tmp_path / "cache"), first)
    assert decoded == [15]
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]


def test_a_folder_that_moved_is_found_again(colour_folder: ColourFolder, tmp_path: Path, decoded: list[int]) -> None:
    folder = colour_folder("train", "test")
    images_of(folder, tmp_path / "cache")
    images_of(folder.rename(tmp_path / "elsewhere"), tmp_path / "cache")
    assert decoded == [15]


def test_other_content_size_or_channels_are_other_images(
    colour_folder: ColourFolder, tmp_path: Path, decoded: list[int]
) -> None:
    folder = colour_folder("train", "test")
    images_of(folder, tmp_path / "cache")
    load(folder, cache_dir=tmp_path / "cache", image_size=10)
    load(folder, cache_dir=tmp_path / "cache", channels=1)
    assert decoded == [15] * 3
    (folder / "train" / "red" / "0.png").write_bytes((folder / "train" / "red" / "1.png").read_bytes())
    assert images_of(folder, tmp_path / "cache")[10, 0, 0, 0] == 1
    assert decoded == [15] * 4


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "text"])
def test_a_damaged_file_is_rebuilt(
    colour_folder: ColourFolder, tmp_path: Path, decoded: list[int], damage: str
) -> None:
    folder = colour_folder("train", "test")
    first = images_of(folder, tmp_path / "cache").clone()
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    broken = {
        "truncated": content[:-100],
        "changed": content[:-100] + b"\x07" * 100,
        "empty": b"",
        "text": b"hello " * 100,
    }
    file.write_bytes(broken[damage])
    assert torch.equal(images_of(folder, tmp_path / "cache"), first)
    assert decoded == [15, 15]
    kept = read_cached(file)
    assert kept is not None
    assert torch.equal(kept, first)


def test_the_folder_is_chosen_by_argument_variable_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANCONV_CACHE", "/by/variable")
    assert cache_folder("/by/argument") == Path("/by/argument")
    assert cache_folder(None) == Path("/by/variable")
    monkeypatch.delenv("LEANCONV_CACHE")
    assert cache_folder(None) == Path.home() / ".cache" / "leanconv"


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cache folder .*file cannot be written to"):
        write_cached(tmp_path / "file" / "x.safetensors", torch.zeros(1, dtype=torch.uint8))


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("leanconv.data.cache.os.replace", fail)
    with pytest.raises(UserError, match="disk full"):
        write_cached(tmp_path / "x.safetensors", torch.zeros(1, dtype=torch.uint8))
    assert list(tmp_path.iterdir()) == []
    assert read_cached(tmp_path / "x.safetensors") is None
