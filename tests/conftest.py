"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

from leanconv.data import ImageData, load


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data and trained weights named by ``LEANCONV_DATA``."""
    folder = os.environ.get("LEANCONV_DATA")
    if not folder:
        pytest.skip("LEANCONV_DATA is not set: it names the folder with the real data and trained weights")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def cifar10(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """CIFAR-10, decoded once a session."""
    return load("cifar10", folder=data_folder / "cifar10", cache_dir=tmp_path_factory.mktemp("cache"))
