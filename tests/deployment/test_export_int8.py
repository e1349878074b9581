"""Eight-bit exports: made by the runtime's own tool, compared, and counted on labelled inputs."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leanconv.deployment import export
from leanconv.errors import UserError


def separable(rows: int) -> tuple[Tensor, Tensor]:
    """Images whose class is the third of the channels that is brightest."""
    labels = torch.arange(rows) % 3
    images = 0.3 * torch.randn(rows, 3, 8, 8)
    images[torch.arange(rows), labels] += 1
    return images, labels


def network() -> nn.Module:
    """A network that tells them apart by construction."""
    conv = nn.Conv2d(3, 3, 3, padding=1, groups=3)
    nn.init.constant_(conv.weight, 1 / 9)
    linear = nn.Linear(3, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(3))
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval()


@pytest.mark.parametrize(("suffix", "tool"), [(".onnx", "onnxruntime"), (".xml", "nncf")])
def test_int8_keeps_the_classes_and_holds_integers(suffix: str, tool: str, tmp_path: Path) -> None:
    for package in ("onnxscript", tool):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    path = tmp_path / f"net{suffix}"
    batches = [separable(16)[0] for _ in range(4)]
    report = export(network(), path, separable(4)[0], int8=batches, accuracy=[separable(30), separable(15)], rounds=2)
    assert report.dtype == "int8"
    assert report.accuracy == {"eager": 1.0, report.engine: 1.0}
    assert {(case.inputs, case.batch) for case in report.parity} == {("given", 4), ("calibration", 6)}
    assert all(0 < case.relative < 0.05 for case in report.parity)
    assert set(report.latency) == {"eager", report.engine, f"{report.engine} float"}
    assert report.int8_speedup is not None
    assert operators(path) & {"QuantizeLinear", "FakeQuantize", "Convert"}
    assert {file.name for file in tmp_path.iterdir()} == ({"net.xml", "net.bin"} if suffix == ".xml" else {"net.onnx"})


def test_onnx_computes_convolutions_of_images_in_floating_point(tmp_path: Path) -> None:
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnxscript") is None:
        pytest.skip("onnxruntime or onnxscript is not installed")
    import onnx

    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8))
    export(layers.eval(), tmp_path / "net.onnx", separable(4)[0], int8=[separable(16)[0]], verify=False)
    graph = onnx.load(str(tmp_path / "net.onnx")).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    weights = [made_by.get(node.input[1]) for node in graph.node if node.op_type == "Conv"]
    assert weights == [None, "DequantizeLinear", "DequantizeLinear"]


def operators(path: Path) -> set[str]:
    if path.suffix == ".onnx":
        import onnx

        return {node.op_type for node in onnx.load(str(path)).graph.node}
    import openvino

    return {operation.get_type_name() for operation in openvino.Core().read_model(path).get_ops()}


@pytest.mark.parametrize(
    ("batches", "sentence"), [([], "no inputs to calibrate on"), ([torch.randn(2, 3, 9, 8)], "only the batch sizes")]
)
def test_calibration_inputs_that_do_not_fit_are_named(batches: list, sentence: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnxscript") is None:
        pytest.skip("onnxruntime or onnxscript is not installed")
    with pytest.raises(UserError, match=sentence):
        export(network(), tmp_path / "net.onnx", torch.randn(2, 3, 8, 8), int8=batches)
    assert not list(tmp_path.iterdir())
