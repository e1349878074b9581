"""Fixtures shared by all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from leanconv.data import ImageData, load

# The first example of a test pays for what torch sets up, and machines are shared: times say nothing here.
hypothesis.settings.register_profile("leanconv", deadline=None)
hypothesis.settings.load_profile("leanconv")


# Tiny operators on two threads spend their time waiting for each other when the machine is busy.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's caches."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEANCONV_CACHE", str(folder / "leanconv"))
        patch.setenv("HF_HOME", str(folder / "huggingface"))
        patch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
        # It has read the variables already where a test module imports it.
        if "datasets" in sys.modules:
            patch.setattr(sys.modules["datasets"].config, "HF_DATASETS_CACHE", folder / "datasets")
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data and trained weights named by ``LEANCONV_DATA``."""
    folder = os.environ.get("LEANCONV_DATA")
    if not folder:
        pytest.skip("LEANCONV_DATA is not set: it names the folder with the real data and trained weights")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def cifar10(data_folder: Path) -> ImageData:
    """CIFAR-10, decoded once a session."""
    return load("cifar10", folder=data_folder / "cifar10")
