"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch


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
