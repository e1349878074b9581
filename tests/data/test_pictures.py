"""Images to enlarge come by name, from folders and from parquet files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leanconv.data import load_pictures
from leanconv.data.pictures import rgb_to_y
from leanconv.errors import UserError


def photo(path: Path, side: int = 40, mode: str = "RGB", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side + 3, 3) if mode == "RGB" else (side, side + 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


def test_luma_of_black_white_and_the_primaries_is_that_of_bt601() -> None:
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    assert rgb_to_y(colours.T.reshape(3, 1, 5)).tolist() == [[16, 235, 81, 145, 41]]
    grey = torch.tensor([[[0, 128, 255]]], dtype=torch.uint8)
    assert torch.equal(rgb_to_y(grey), grey[0])


def test_photographs_of_scikit_image_stand_in() -> None:
    data = load_pictures()
    assert (data.name, len(data.train), len(data.test)) == ("photos", 9, 3)
    assert data.test.planes[data.test.names.index("chelsea")].shape == (300, 451)
    assert not set(data.train.names) & set(data.test.names)


def test_named_sets_are_complete(data_folder: Path) -> None:
    for name, trained, tested in (("train291", 291, 5), ("set14", 0, 14), ("bsd100", 0, 100)):
        data = load_pictures(name, folder=data_folder / "superres")
        assert (len(data.train), len(data.test)) == (trained, tested)


def test_named_sets_may_be_folders_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "urban100" / "img_001.png")
    assert load_pictures("urban100", folder=tmp_path).test.names == ("img_001",)
    monkeypatch.setenv("LEANCONV_DATA", str(tmp_path))
    assert load_pictures("urban100").identity == {"name": "urban100", "images": 0}


def test_a_folder_gives_every_tenth_image_to_the_test(tmp_path: Path) -> None:
    for number in range(12):
        photo(tmp_path / f"{number:02d}.png", seed=number)
    data = load_pictures(tmp_path)
    assert data.test.names == ("00", "10")
    assert len(data.train) == 10


def test_a_folder_may_say_what_to_test_on(tmp_path: Path) -> None:
    photo(tmp_path / "train" / "a.png")
    photo(tmp_path / "train" / "deep" / "b.jpg", mode="L")
    photo(tmp_path / "val" / "c.png")
    data = load_pictures(tmp_path)
    assert (data.train.names, data.test.names) == (("a", "b"), ("c",))


def test_mistakes_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEANCONV_DATA", raising=False)
    with pytest.raises(UserError, match="did you mean 'set5'"):
        load_pictures("set6")
    with pytest.raises(UserError, match=r"'set5' are not here .*LEANCONV_DATA is not set.*--data-folder"):
        load_pictures("set5")
    with pytest.raises(UserError, match="does not exist"):
        load_pictures(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no image files"):
        load_pictures(tmp_path)
    with pytest.raises(UserError, match="goes with one of the names"):
        load_pictures("photos", folder=tmp_path)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"text\.png is not an image"):
        load_pictures(tmp_path)
    photo(tmp_path / "text.png")
    (tmp_path / "text.png").write_bytes((tmp_path / "text.png").read_bytes()[:-300])
    with pytest.raises(UserError, match=r"text\.png is not a readable image"):
        load_pictures(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"broken\.parquet cannot be read"):
        load_pictures(tmp_path / "broken.parquet")
