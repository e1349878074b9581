"""Exports, each read back by its own runtime without our code, and what happens when they fail."""

import importlib.util
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leanconv.deployment import export
from leanconv.deployment.engines import ENGINES, engine_named
from leanconv.deployment.onnx import ONNXRuntime
from leanconv.errors import UserError
from leanconv.models import create_model

SUFFIXES = (".onnx", ".xml", ".pt2", ".pte")


def need(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def need_runtime(suffix: str) -> None:
    packages = {".onnx": ("onnxscript", "onnxruntime"), ".xml": ("onnxscript", "openvino"), ".pte": ("executorch",)}
    need(*packages.get(suffix, ()))


class Net(nn.Module):
    """Batch norm that is not trivial, depthwise axes, a residual, pooling, a linear layer."""

    input_size = (3, 9, 7)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.rows = nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=8)
        self.columns = nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=8)
        self.head = nn.Linear(8, 5)
        nn.init.uniform_(self.stem[1].running_mean)
        nn.init.uniform_(self.stem[1].running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.columns(self.rows(x))).mean((2, 3)))


def run_alone(path: Path, x: Tensor) -> np.ndarray:
    """Run a file with its runtime's plain interface."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    if path.suffix == ".xml":
        import openvino

        compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return compiled(x.numpy())[0]
    if path.suffix == ".pte":
        from executorch.runtime import Runtime

        content = path.read_bytes()
        return Runtime.get().load_program(content).load_method("forward").execute([x])[0].numpy()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        return torch.export.load(path).module()(x).numpy()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_runtime_computes_what_the_network_computes_at_any_batch_size(suffix: str, tmp_path: Path) -> None:
    need_runtime(suffix)
    model = Net()
    report = export(model, tmp_path / f"net{suffix}", torch.randn(3, 3, 9, 7), rounds=2)
    assert model.training  # left as it was found
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 9, 7)
        expected = model.eval()(x).detach().numpy()
        np.testing.assert_allclose(run_alone(tmp_path / f"net{suffix}", x), expected, rtol=1e-4, atol=1e-5)
    assert {(case.inputs, case.batch) for case in report.parity} == {("given", 3), ("random", 3), ("random", 5)}
    assert all(case.holds and case.agreement == 1 for case in report.parity)
    assert report.speedup is not None
    assert set(report.latency) == {"eager", report.engine}
    assert json.loads(report.to_json())["input_shapes"] == [[3, 3, 9, 7]]
    files = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert set(files) == ({"net.xml", "net.bin"} if suffix == ".xml" else {f"net{suffix}"})
    assert report.bytes == sum(files.values())


def test_the_batch_axis_has_a_name_and_no_path_of_this_machine_is_written(tmp_path: Path) -> None:
    need("onnxscript", "onnxruntime")
    import onnx

    export(Net(), tmp_path / "net.onnx", verify=False)
    model = onnx.load(str(tmp_path / "net.onnx"))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path(__file__).parent).encode() not in (tmp_path / "net.onnx").read_bytes()


def test_a_constant_batch_stays_one(tmp_path: Path) -> None:
    need("onnxscript", "onnxruntime")
    report = export(Net(), tmp_path / "net.onnx", torch.randn(4, 3, 9, 7), dynamic_batch=False, rounds=2)
    assert {case.batch for case in report.parity} == {4}
    with pytest.raises(Exception, match="dimensions"):
        run_alone(tmp_path / "net.onnx", torch.randn(3, 3, 9, 7))


def test_lists_of_outputs_and_several_inputs(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
            return [x * y, (x + y).relu()]

    report = export(Two(), tmp_path / "net.pt2", (torch.randn(2, 4), torch.randn(2, 4)), rounds=2)
    assert len(report.input_shapes) == 2
    assert all(case.holds for case in report.parity)


def test_a_network_of_the_zoo(tmp_path: Path) -> None:
    need("onnxscript", "onnxruntime")
    model = create_model("ran26", base_width=4, num_classes=3)
    report = export(model, tmp_path / "ran.onnx", rounds=2)
    assert (report.model, report.input_shapes) == ("ran26", ((1, 3, 32, 32),))
    assert {case.batch for case in report.parity} == {1, 3}


# The compiler reads PyTorch's headers for each instruction set it tries and once more for the network: minutes.
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_aotinductor(tmp_path: Path) -> None:
    model = Net()
    report = export(model, tmp_path / "net.aoti.pt2", torch.randn(3, 3, 9, 7), rounds=2)
    assert report.engine == "aotinductor"
    assert all(case.holds for case in report.parity)
    assert [file.name for file in tmp_path.iterdir()] == ["net.aoti.pt2"]


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".pte"])  # shows results alone
def test_outputs_that_differ_are_traced_to_their_layer_and_leave_nothing(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_runtime(suffix)
    engine = next(engine for engine in ENGINES.values() if getattr(engine, "suffix", None) == suffix)
    write = type(engine).write

    def write_another_weight(self, program, path):
        weights = program.state_dict["columns.weight"]
        kept = weights.clone()
        with torch.no_grad():
            weights.mul_(1.5)
            result = write(self, program, path)
            # The program in memory, to which the file is compared, is right again.
            if result.state_dict["columns.weight"].data_ptr() == weights.data_ptr():
                weights.copy_(kept)
            else:
                result.state_dict["columns.weight"].copy_(kept)
                weights.copy_(kept)
        return result

    monkeypatch.setattr(type(engine), "write", write_another_weight)
    (tmp_path / f"net{suffix}").write_text("older")
    with pytest.raises(UserError, match=r"they part in layer 'columns' .*was not written"):
        export(Net(), tmp_path / f"net{suffix}", torch.randn(2, 3, 9, 7))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(f"net{suffix}", "older")]


def test_a_tolerance_that_nothing_meets_fails(tmp_path: Path) -> None:
    need("onnxscript", "onnxruntime")
    with pytest.raises(UserError, match="tolerance 0\\)"):
        export(create_model("ran26", base_width=4), tmp_path / "net.onnx", tolerance=0.0)
    assert not list(tmp_path.iterdir())


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # the line that is to be named
            return x + 1
        return x


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


def test_control_flow_that_depends_on_data_names_the_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = Path(__file__).read_text().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if text.endswith("# the line that is to be named"))
    with pytest.raises(UserError, match=rf"depends on the data in .*test_export\.py, line {line} .*x\.sum\(\) > 0"):
        export(Branches(), tmp_path / "net.pt2", torch.randn(2, 3))
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""


def test_a_constant_batch_size_in_the_code_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"batch size a constant.*dynamic_batch=False"):
        export(Fixed(), tmp_path / "net.pt2", torch.randn(2, 3))
    export(Fixed(), tmp_path / "net.pt2", torch.randn(2, 3), dynamic_batch=False, rounds=1)


@pytest.mark.parametrize(
    ("path", "arguments", "sentence"),
    [
        ("net.tflite", {}, r"suffix that no export writes: use \.onnx"),
        (".onnx", {}, "suffix that no export writes"),
        ("missing/net.pt2", {}, r"cannot be written \(No such file or directory\)"),
        ("net.pt2", {"example": torch.randn(1, 4, 9, 7)}, r"`example` \(1, 4, 9, 7\) does not fit .*\(N, 3, H, W\)"),
        ("net.pt2", {"example": torch.randn(0, 3, 9, 7)}, "at least one row"),
        ("net.pt2", {"example": [1.0]}, "`example` must be a tensor"),
        ("net.pt2", {"int8": [torch.randn(2, 3, 9, 7)]}, r"`int8` is made by .*not for net\.pt2"),
        ("net.pt2", {"rounds": 0}, "`rounds` must be a positive integer"),
        ("net.pt2", {"accuracy": []}, "`accuracy` gives no labelled inputs"),
    ],
)
def test_mistakes_are_named_and_leave_no_file(path: str, arguments: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        export(Net(), tmp_path / path, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        export(Net(), tmp_path / "net.pt2")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        export(Net(), tmp_path / "net.pt2")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ONNXRuntime, "packages", ("onnxruntime_that_is_not_there",))
    with pytest.raises(UserError, match=r'pip install "leanconv\[deploy\]"'):
        export(Net(), tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["eager", "onnxruntime", "openvino", "torch.export", "executorch"])
def test_every_engine_runs_a_network_and_its_own_files(name: str, tmp_path: Path) -> None:
    engine = engine_named(name)
    for package in getattr(engine, "packages", ()):
        need(package)
    model, x = Net().eval(), torch.randn(2, 3, 9, 7)
    expected = model(x)
    torch.testing.assert_close(engine.load(model, x, threads=1)(x)[0], expected, rtol=1e-4, atol=1e-5)
    if name == "eager":
        with pytest.raises(UserError, match="runs networks, not files"):
            engine.load(tmp_path / "net.onnx", x)
        return
    path = tmp_path / f"net{engine.suffix}"
    export(model, path, x, verify=False)
    torch.testing.assert_close(engine.load(path, x)(x)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_compiled_network_has_its_weights_frozen_in_inference_mode_too() -> None:
    model, x = Net().eval(), torch.randn(2, 3, 9, 7)
    expected = model(x)
    run = engine_named("compile").load(model, x)
    torch.testing.assert_close(run(x)[0], expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        model.head.weight.zero_()
    with torch.inference_mode():
        torch.testing.assert_close(run(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(UserError, match="did you mean 'onnxruntime'"):
        engine_named("onnxruntme")
