"""The real CIFAR-10, from its parquet files."""

from pathlib import Path

import pytest
import torch

from leanconv.data import ArraySplit, Augment, ImageData, arrays, batches, load


def test_counts_and_classes(cifar10: ImageData) -> None:
    assert cifar10.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert (cifar10.channels, cifar10.image_size) == (3, (32, 32))
    assert cifar10.augment == Augment(crop_padding=4, flip=True)
    assert cifar10.train.labels.bincount().tolist() == [5000] * 10
    assert cifar10.test.labels.bincount().tolist() == [1000] * 10


def test_the_mean_is_the_published_one(cifar10: ImageData) -> None:
    mean, std = arrays.moments(cifar10.train)
    assert mean == pytest.approx(cifar10.mean, abs=1e-4)
    assert std == pytest.approx((0.2470, 0.2435, 0.2616), abs=1e-4)


def test_the_second_load_is_the_same_without_decoding(
    cifar10: ImageData, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(arrays, "_decoded")
    again = load(data_folder / "cifar10")
    assert isinstance(cifar10.train, ArraySplit)
    assert isinstance(again.train, ArraySplit)
    assert torch.equal(again.train.images, cifar10.train.images)
    assert torch.equal(again.train.labels, cifar10.train.labels)
    assert again.mean == pytest.approx(cifar10.mean, abs=1e-4)


def test_an_epoch_of_training(cifar10: ImageData) -> None:
    loader = batches(cifar10.train, 512, train=True, augment=cifar10.augment)
    assert len(loader) == 50_000 // 512
    images, labels = next(loader.epoch(0))
    assert images.shape == (512, 3, 32, 32)
    assert labels.unique().tolist() == list(range(10))
    mean, std = torch.tensor(cifar10.mean), torch.tensor(cifar10.std)
    torch.testing.assert_close(images.amin(dim=(0, 2, 3)), -mean / std)
    torch.testing.assert_close(images.amax(dim=(0, 2, 3)), (1 - mean) / std)
