"""Networks for super-resolution leave for other runtimes and compute the same there."""

from pathlib import Path

import pytest
import torch
from torch import nn

import leanconv as lc
from leanconv.models import MODELS, create_model, list_models


@pytest.mark.parametrize("name", [name for name in list_models(purpose="superres") if "u25" not in name])
def test_a_folded_network_exports_and_is_verified(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = create_model(name, **MODELS[name].small)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    report = lc.export(lc.fold(network.eval()), tmp_path / "network.onnx", example=torch.rand(1, 1, 24, 32))
    assert max(case.relative for case in report.parity) < 1e-5
    assert report.findings == ()
