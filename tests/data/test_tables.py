"""Folders of parquet files, and what the hub delivers."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from leanconv.data import ArraySplit, Augment, StreamSplit, batches, list_data_sets, load
from leanconv.data.tables import TableLayout, read_hub
from leanconv.errors import UserError


def encoded(level: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), level, np.uint8)).save(stream, "png")
    return stream.getvalue()


def write(folder: Path, name: str, labels: list[Any], *, image: str = "img", label: str = "label") -> None:
    """Write a table as pyarrow does, without the declarations of the ``datasets`` library."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": encoded(row), "path": None} for row in range(len(labels))]
    pq.write_table(pa.table({image: images, label: labels}), folder / name)


def test_plain_parquet_in_several_files(tmp_path: Path) -> None:
    write(tmp_path, "train-00000-of-00002.parquet", [0, 1, 2])
    write(tmp_path, "train-00001-of-00002.parquet", [2, 1])
    write(tmp_path, "test-00000-of-00001.parquet", [0, 1])
    data = load(tmp_path)
    assert data.classes == ("0", "1", "2")
    assert (data.channels, data.image_size) == (1, (8, 8))
    assert data.train.labels.tolist() == [0, 1, 2, 2, 1]
    assert isinstance(data.train, ArraySplit)
    assert data.train.images[:, 0, 4, 4].tolist() == [0, 1, 2, 0, 1]


def test_declared_images_and_class_names(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "ant"])})
    table = {"image": [{"bytes": encoded(level), "path": None} for level in (5, 6)], "label": [1, 0]}
    for split in ("train", "validation"):
        datasets.Dataset.from_dict(table, features).to_parquet(tmp_path / f"{split}.parquet")
    data = load(tmp_path)
    assert data.classes == ("cat", "ant")
    assert data.test.labels.tolist() == [1, 0]


def test_labels_that_are_names_and_images_that_are_bytes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        table = pa.table({"image": [encoded(1), encoded(2), encoded(3)], "class": ["dog", "ant", "dog"]})
        (tmp_path / split).mkdir()
        pq.write_table(table, tmp_path / split / "0000.parquet")
    data = load(tmp_path)
    assert data.classes == ("ant", "dog")
    assert data.train.labels.tolist() == [1, 0, 1]


def test_other_columns_and_splits_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, "learn.parquet", [0, 1], image="photo", label="kind")
    write(tmp_path, "judge.parquet", [1], image="photo", label="kind")
    with pytest.raises(UserError, match="has the splits 'judge', 'learn' and no 'train'"):
        load(tmp_path)
    with pytest.raises(UserError, match="no column 'image' or 'img'; its columns are 'photo', 'kind': name one with"):
        load(tmp_path, split_names=("learn", "judge"))
    with pytest.raises(UserError, match="no column 'colour'; its columns are 'photo', 'kind'"):
        load(tmp_path, split_names=("learn", "judge"), image_column="photo", label_column="colour")
    data = load(tmp_path, split_names=("learn", "judge"), image_column="photo", label_column="kind")
    assert (len(data.train), len(data.test)) == (2, 1)


def test_bad_tables_are_named(tmp_path: Path) -> None:
    write(tmp_path / "one", "train.parquet", [0, 0])
    with pytest.raises(UserError, match="one has the splits 'train' but none to test on"):
        load(tmp_path / "one")
    with pytest.raises(UserError, match="one has 1 classes"):
        load(tmp_path / "one", split_names=("train", None))
    write(tmp_path / "hidden", "train.parquet", [0, 1])
    write(tmp_path / "hidden", "test.parquet", [-1, -1])
    with pytest.raises(UserError, match=r"Row 0 of split 'test' of folder .*hidden has none of the 2 classes"):
        load(tmp_path / "hidden")
    write(tmp_path / "real", "train.parquet", [0.5, 1.5])
    write(tmp_path / "real", "test.parquet", [0.5])
    with pytest.raises(UserError, match="labels are strings or whole numbers"):
        load(tmp_path / "real")
    write(tmp_path / "numbers", "train.parquet", [0, 20_000_000])
    write(tmp_path / "numbers", "test.parquet", [0])
    with pytest.raises(UserError, match="the label 20000000 in column 'label': number the classes from 0"):
        load(tmp_path / "numbers")
    (tmp_path / "broken").mkdir()
    for split in ("train", "test"):
        (tmp_path / "broken" / f"{split}.parquet").write_bytes(b"PAR1 this is no table")
    with pytest.raises(UserError, match=r"folder .*broken cannot be read"):
        load(tmp_path / "broken")
    for config in ("plain", "fancy"):
        write(tmp_path / "two" / config, "train.parquet", [0, 1])
    with pytest.raises(UserError, match="has parquet files in fancy, plain: give one of these folders"):
        load(tmp_path / "two")


def test_an_unreadable_cell_is_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        images = [encoded(0), b"no image" if split == "test" else encoded(1), encoded(2)]
        pq.write_table(pa.table({"image": images, "label": [0, 1, 1]}), tmp_path / f"{split}.parquet")
    with pytest.raises(UserError, match=r"Row 1, column 'image' of split 'test' of folder .* not an image"):
        load(tmp_path)


def test_a_name_with_a_local_copy_keeps_its_own_constants(tmp_path: Path) -> None:
    write(tmp_path / "mnist", "train-00000-of-00001.parquet", [0, 1, 2], image="image")
    write(tmp_path / "mnist", "test-00000-of-00001.parquet", [2], image="image")
    data = load("mnist", folder=tmp_path)
    assert (data.name, data.mean, data.std) == ("mnist", (0.1307,), (0.3081,))
    assert not data.augment.flip


def test_only_the_files_wanted_are_read_from_the_hub(tmp_path: Path) -> None:
    # The hub library treats a folder as a repository, so this is what it does with one.
    write(tmp_path / "cropped_digits", "train-00000-of-00001.parquet", [0, 1])
    write(tmp_path / "cropped_digits", "test-00000-of-00001.parquet", [1])
    (tmp_path / "cropped_digits" / "extra-00000-of-00001.parquet").write_bytes(b"never opened")
    from leanconv.data.known import DATA_SETS

    known = DATA_SETS["svhn"]
    source = read_hub(str(tmp_path), None, known.data_files, TableLayout(("train", "test"), image_column="img"))
    assert source.train.labels.tolist() == [0, 1]
    assert source.test is not None
    assert source.test.labels.tolist() == [1]


HUB = {
    "cifar10": ("uoft-cs/cifar10", "img", ["label"], ["train", "test"], (32, 32, 3)),
    "cifar100": ("uoft-cs/cifar100", "img", ["fine_label", "coarse_label"], ["train", "test"], (32, 32, 3)),
    "svhn": ("ufldl-stanford/svhn", "image", ["label"], ["train", "test"], (32, 32, 3)),
    "tiny-imagenet": ("zh-plus/tiny-imagenet", "image", ["label"], ["train", "valid"], (64, 64, 3)),
    "mnist": ("ylecun/mnist", "image", ["label"], ["train", "test"], (28, 28)),
    "fashion-mnist": ("zalando-datasets/fashion_mnist", "image", ["label"], ["train", "test"], (28, 28)),
    "imagenet-1k": ("ILSVRC/imagenet-1k", "image", ["label"], ["train", "validation", "test"], (50, 70, 3)),
}
"""Place, columns, splits and shape of an image of the data sets with a short name, from their cards."""


@pytest.mark.parametrize("name", [name for name in list_data_sets() if name != "digits"])
def test_names_fit_what_the_hub_delivers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, image, labels, splits, shape = HUB[name]
    stream = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(stream, "png")
    columns = {image: datasets.Image()} | {
        label: datasets.ClassLabel(names=["a", "b"] if number == 0 else ["c"]) for number, label in enumerate(labels)
    }
    asked = []

    def deliver(*arguments: Any, **keywords: Any) -> datasets.DatasetDict:
        asked.append(arguments[0])
        hidden = {split: -1 if name == "imagenet-1k" and split == "test" else 0 for split in splits}
        tables = {
            split: datasets.Dataset.from_dict(
                {image: [{"bytes": stream.getvalue(), "path": None}] * 2}
                | {label: [hidden[split]] * 2 for label in labels},
                datasets.Features(columns),
            )
            for split in splits
        }
        return datasets.DatasetDict(tables)

    monkeypatch.setattr(datasets, "load_dataset", deliver)
    data = load(name, workers=0)
    assert asked == [place]
    assert data.classes == ("a", "b")
    assert data.channels == (1 if len(shape) == 2 else 3)
    if name == "imagenet-1k":
        assert isinstance(data.test, StreamSplit)
        assert data.image_size == (224, 224)
        assert data.augment == Augment(flip=True, crop_area=0.08)
    else:
        assert isinstance(data.test, ArraySplit)
        assert data.image_size == shape[:2]
        # A mirrored digit is another sign.
        assert data.augment.flip == (name not in ("mnist", "svhn"))
    images, target = next(batches(data.test, 2, train=False).epoch(0))
    assert target.tolist() == [0, 0]
    black = -torch.tensor(data.mean) / torch.tensor(data.std)
    torch.testing.assert_close(images, black[:, None, None].expand_as(images))
