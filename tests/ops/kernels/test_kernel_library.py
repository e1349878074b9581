"""Building the kernel: whole or not at all, and never needed."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from leanconv.ops.kernels import library as module
from leanconv.ops.kernels.depthwise_norm import depthwise_norm
from leanconv.ops.kernels.library import library


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache folder without a kernel."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.cache_clear()
    yield tmp_path / "leanconv"
    library.cache_clear()


def test_without_a_compiler_torch_computes(
    anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    x = torch.randn(2, 16, 4, 4)
    with caplog.at_level(logging.WARNING):
        y = depthwise_norm(x, None, torch.ones(16), torch.zeros(16))[0]
        depthwise_norm(x, None, torch.ones(16), torch.zeros(16))
    assert_close(y, torch.nn.functional.batch_norm(x, None, None, training=True), rtol=1e-4, atol=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        "Networks train with PyTorch's operators, as the fused kernel could not be built: no C++ compiler was found"
    ]


def test_a_compiler_that_fails_leaves_no_file(
    anew: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho 'error: no such machine' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CXX", str(failing))
    assert library() is None
    assert "no such machine" in caplog.text
    assert list(anew.iterdir()) == []


def test_a_kernel_in_the_cache_is_not_built_again(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []
    monkeypatch.setattr(module, "_build", built.append)
    assert library() is None  # nothing was written
    anew.mkdir(exist_ok=True)
    built[0].touch()
    library.cache_clear()
    library()
    assert len(built) == 1
