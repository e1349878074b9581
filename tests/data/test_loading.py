"""What ``load`` makes of names and folders."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leanconv.data import IMAGENET_MEAN, ArraySplit, Augment, StreamSplit, batches, list_data_sets, load
from leanconv.errors import UserError

ColourFolder = Callable[..., Path]


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    truth = load_digits()
    data = load("digits", image_size=8)
    assert data.classes == tuple("0123456789")
    assert (data.channels, data.image_size, data.num_classes) == (1, (8, 8), 10)
    assert isinstance(data.train, ArraySplit)
    assert isinstance(data.test, ArraySplit)
    images = torch.cat([data.train.images, data.test.images])[:, 0].double() * 16 / 255
    labels = torch.cat([data.train.labels, data.test.labels])
    ours = torch.cat([images.round().flatten(1).long(), labels[:, None]], dim=1).tolist()
    theirs = np.column_stack([truth.data.astype(int), truth.target]).tolist()
    assert sorted(ours) == sorted(theirs)
    for label, count in enumerate(np.bincount(truth.target)):
        assert (data.test.labels == label).sum() == round(0.2 * count)


def test_digits_are_enlarged_and_have_their_own_constants() -> None:
    data = load("digits")
    assert data.image_size == (16, 16)
    assert data.augment == Augment(crop_padding=2)
    images, _ = next(batches(data.train, len(data.train), train=False).epoch(0))
    assert images.shape == (len(data.train), 1, 16, 16)
    assert images.mean() == pytest.approx(0, abs=1e-3)
    assert images.std() == pytest.approx(1, abs=1e-3)
    small = load("digits", image_size=8)
    assert isinstance(data.train, ArraySplit)
    assert isinstance(small.train, ArraySplit)
    enlarged = torch.nn.functional.interpolate(small.train.images.float(), scale_factor=2, mode="bilinear")
    assert (enlarged - data.train.images.float()).abs().max() <= 1


def test_digits_as_rgb_take_the_statistics_of_the_images() -> None:
    data = load("digits", channels=3)
    assert data.channels == 3
    assert data.mean == pytest.approx([0.3047] * 3, abs=1e-4)
    assert data.std == pytest.approx([0.3184] * 3, abs=1e-4)


def test_the_seed_chooses_the_test_images() -> None:
    first, again, other = (load("digits", seed=seed).test for seed in (0, 0, 1))
    assert isinstance(first, ArraySplit)
    assert isinstance(again, ArraySplit)
    assert isinstance(other, ArraySplit)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_a_folder_with_splits(colour_folder: ColourFolder, test: str) -> None:
    folder = colour_folder("train", test)
    (folder / "train" / "red" / "notes.txt").write_text("not an image")
    (folder / "train" / "red" / ".hidden.png").write_text("not an image")
    data = load(folder)
    assert data.classes == ("blue", "green", "red")
    assert (data.channels, data.image_size) == (3, (12, 12))
    assert data.augment == Augment(crop_padding=1, flip=True)
    assert isinstance(data.train, ArraySplit)
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert data.train.images[6, :, 3, 3].tolist() == [0, 255, 0]
    assert data.train.images[7, :, 0, 0].tolist() == [2, 2, 2]
    assert len(data.test) == 15
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert data.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist())


def test_a_folder_of_classes_is_split_in_proportion(colour_folder: ColourFolder) -> None:
    data = load(str(colour_folder(per_class=10)))
    assert data.train.labels.bincount().tolist() == [8, 8, 8]
    assert data.test.labels.bincount().tolist() == [2, 2, 2]
    assert isinstance(data.train, ArraySplit)
    assert isinstance(data.test, ArraySplit)
    marks = torch.cat([data.train.images, data.test.images])[:, 0, 0, 0]
    assert marks.bincount().tolist() == [3] * 10


def test_a_split_can_be_set_aside(colour_folder: ColourFolder) -> None:
    data = load(colour_folder("train"), split_names=("train", None))
    assert (len(data.train), len(data.test)) == (12, 3)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 3), ("P", 3)])
def test_channels_follow_the_images(colour_folder: ColourFolder, mode: str, channels: int) -> None:
    folder = colour_folder("train", "test", mode=mode)
    assert load(folder).channels == channels
    grey = load(folder, channels=1)
    assert isinstance(grey.train, ArraySplit)
    # ITU-R 601 luma of pure blue, green and red.
    assert grey.train.images[[0, 5, 10], 0, 5, 5].tolist() == pytest.approx([29, 150, 76], abs=1)


def test_a_stream_and_memory_give_the_same_batches(colour_folder: ColourFolder) -> None:
    folder = colour_folder("train", "test", per_class=8)
    held = load(folder)
    for workers in (0, 1):
        streamed = load(folder, streaming=True, workers=workers)
        assert isinstance(streamed.train, StreamSplit)
        assert streamed.mean == pytest.approx(held.mean)
        for train in (True, False):
            first = batches(held.train, 5, train=train, augment=held.augment, seed=3)
            second = batches(streamed.train, 5, train=train, augment=held.augment, seed=3)
            assert len(first) == len(second)
            for (images, labels), (others, same) in zip(first.epoch(2), second.epoch(2), strict=True):
                torch.testing.assert_close(images, others)
                assert torch.equal(labels, same)


def test_a_stream_is_shared_by_processes(colour_folder: ColourFolder) -> None:
    data = load(colour_folder("train", "test", size=(40, 30)), image_size=16, streaming=True, workers=0)
    assert data.augment == Augment(flip=True, crop_area=0.08)

    def epoch(**share: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(batches(data.train, 6, train=True, augment=data.augment, **share).epoch(1))

    alone = epoch()
    for whole, left, right in zip(alone, epoch(rank=0, world_size=2), epoch(rank=1, world_size=2), strict=True):
        assert whole[0].shape == (6, 3, 16, 16)
        assert torch.equal(whole[0], torch.cat([left[0], right[0]]))
        assert torch.equal(whole[1], torch.cat([left[1], right[1]]))


def test_resampled_parts_of_a_stream_lie_in_the_image(tmp_path: Path) -> None:
    # Red is the column and green the row, so a crop tells where it came from.
    rows, columns = np.mgrid[0:120, 0:100].astype(np.uint8)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = np.dstack([columns * 2, rows * 2, np.zeros_like(rows)])
            Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    data = load(tmp_path, image_size=32, workers=0, streaming=True).with_normalisation([0] * 3, [1] * 3)
    augment = Augment(crop_area=0.1)
    corners = set()
    for epoch in range(30):
        images, _ = next(batches(data.train, 1, train=True, augment=augment).epoch(epoch))
        columns_seen, rows_seen = images[0, 0] * 255 / 2, images[0, 1] * 255 / 2
        across, down = columns_seen[0, -1] - columns_seen[0, 0], rows_seen[-1, 0] - rows_seen[0, 0]
        assert 0.05 < across * down / (100 * 120) <= 1
        corners.add((round(columns_seen[0, 0].item()), round(rows_seen[0, 0].item())))
    assert len(corners) > 20
    # The test image is its middle: 7/8 of the shorter side, 87.5 pixels across and down.
    images, _ = next(batches(data.test, 1, train=False).epoch(0))
    assert (images[0, 0, 0, 0] * 255 / 2).item() == pytest.approx((100 - 87.5) / 2 + 87.5 / 64 - 0.5, abs=1)
    assert (images[0, 1, 0, 0] * 255 / 2).item() == pytest.approx((120 - 87.5) / 2 + 87.5 / 64 - 0.5, abs=1)


def test_images_of_many_sizes_get_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (20 + number, 30)).save(tmp_path / name / f"{number}.png")
    data = load(tmp_path)
    assert data.image_size == (20, 20)
    assert isinstance(data.train, ArraySplit)
    large = load(tmp_path, image_size=(100, 120), workers=0)
    assert isinstance(large.train, StreamSplit)
    assert large.image_size == (100, 120)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar11", "Unknown data set 'cifar11': did you mean 'cifar10'.* path of a folder"),
        ("", "Unknown data set '': known names are cifar10"),
        ("./nowhere", r"The data folder \./nowhere does not exist\."),
        ("/no/where/else", r"The data folder /no/where/else does not exist\."),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(name)


def test_a_data_set_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*arguments: object, **keywords: object) -> None:
        raise ConnectionError("Couldn't reach the hub\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match=r"data set owner/name cannot be read .*: Couldn't reach the hub$"):
        load("owner/name")


def test_arguments_out_of_range_are_refused(colour_folder: ColourFolder) -> None:
    folder = colour_folder("train", "test")
    with pytest.raises(UserError, match="channels=4 is not possible"):
        load(folder, channels=4)
    with pytest.raises(UserError, match="image_size=0 is not a size"):
        load(folder, image_size=0)
    with pytest.raises(UserError, match="workers=-1 is not a number"):
        load(folder, workers=-1)
    for constants, message in (
        (((0.5,), (float("nan"),)), r"std=\(nan,\) is not a standard deviation"),
        (((float("nan"),), (0.5,)), r"mean=\(nan,\) is not a colour"),
    ):
        with pytest.raises(UserError, match=message):
            load("digits").with_normalisation(*constants)
    with pytest.raises(UserError, match="folder='x' goes with one of the names"):
        load(folder, folder="x")
    with pytest.raises(UserError, match=r"asks for 'dev', but the folder .* has the splits 'test', 'train'"):
        load(folder, split_names=("train", "dev"))


def test_broken_folders_are_named(colour_folder: ColourFolder, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"folder .*empty has 0 class folders"):
        load(empty)
    (empty / "only").mkdir()
    with pytest.raises(UserError, match=r"folder .*empty has 1 class folders"):
        load(empty)
    (empty / "rest").mkdir()
    with pytest.raises(UserError, match=r"class folder .*only has no image files"):
        load(empty)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(UserError, match=r"file\.txt is a file"):
        load(tmp_path / "file.txt")

    folder = colour_folder("train")
    with pytest.raises(UserError, match=r"colours has the splits 'train' but none to test on"):
        load(folder)
    (folder / "test" / "purple").mkdir(parents=True)
    with pytest.raises(UserError, match=r"test/purple is a class of which .*train has no images"):
        load(folder)


@pytest.mark.parametrize("streaming", [False, True])
def test_an_unreadable_image_is_named(colour_folder: ColourFolder, streaming: bool) -> None:
    folder = colour_folder("train", "test", per_class=20)
    broken = folder / "train" / "green" / "13.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"^The file .*13\.png is not an image of a known format\.$"):
        load(folder, streaming=streaming, workers=1)


def test_list_data_sets() -> None:
    assert list_data_sets("*cifar*") == ["cifar10", "cifar100"]
    assert {"digits", "imagenet-1k", "mnist", "svhn", "tiny-imagenet"} < set(list_data_sets())


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "{'datasets', 'sklearn', 'pandas', 'PIL', 'rich'}"
    code = f"import sys, leanconv.data; sys.exit(' '.join({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_a_name_with_a_local_image_folder(colour_folder: ColourFolder) -> None:
    data = load("imagenet-1k", folder=colour_folder("train", "val", size=(20, 30)), image_size=16, workers=0)
    assert data.classes == ("blue", "green", "red")
    assert data.mean == IMAGENET_MEAN
    # Small enough for memory, where the crop that needs the originals gives way to one with padding.
    assert isinstance(data.train, ArraySplit)
    assert data.augment == Augment(flip=True, crop_padding=2)
