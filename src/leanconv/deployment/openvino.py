"""OpenVINO's intermediate representation, converted from ONNX, which keeps the names of all values."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from leanconv.deployment.engine import FileEngine, Runner
from leanconv.deployment.onnx import write_onnx

_COMPUTED = "Constant", "Parameter", "Result"


class OpenVINO(FileEngine):
    """OpenVINO on the CPU.

    Computes in the precision of the file: by default OpenVINO would round to bfloat16 on processors that have it,
    and outputs would depend on the machine.
    """

    name: str = "openvino"
    suffix: str = ".xml"
    packages: tuple[str, ...] = ("onnx", "onnxscript", "openvino")
    int8: bool = True

    def write(self, program: ExportedProgram, path: Path) -> ExportedProgram:
        """Write the ``.xml`` file and its weights, in full precision, as ``.bin`` beside it."""
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            intermediate = Path(folder) / "model.onnx"
            decomposed = write_onnx(program, intermediate)
            openvino.save_model(openvino.convert_model(intermediate), path, compress_to_fp16=False)
        return decomposed

    def open(self, path: Path, threads: int) -> Runner:
        """Return a compiled model as a function of tensors."""
        import openvino

        return _compiled(openvino.Core().read_model(path), threads)

    def intermediates(self, path: Path, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return every floating-point value of the graph that has a name."""
        import openvino

        model = openvino.Core().read_model(path)
        ports = [
            port
            for operation in model.get_ordered_ops()
            if operation.get_type_name() not in _COMPUTED
            for port in operation.outputs()
            if port.get_names() and port.get_element_type().is_real()
        ]
        names = [sorted(port.get_names()) for port in ports]
        model = openvino.Model([port.get_node().output(port.get_index()) for port in ports], model.get_parameters())
        found: dict[str, Tensor] = {}
        for aliases, value in zip(names, _compiled(model, 1)(*inputs), strict=True):
            found.update(dict.fromkeys(aliases, value))
        return found

    def quantize(self, path: Path, batches: Sequence[tuple[Tensor, ...]]) -> None:
        """Replace a file by its int8 form with NNCF."""
        from leanconv.deployment.quantization import quantize_openvino

        quantize_openvino(path, batches)


def _compiled(model: Any, threads: int) -> Runner:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    outputs = range(len(compiled.outputs))

    def run(*inputs: Tensor) -> list[Tensor]:
        for index, tensor in enumerate(inputs):
            request.set_input_tensor(index, openvino.Tensor(tensor.detach().contiguous().numpy(), shared_memory=True))
        request.start_async()
        request.wait()
        return [torch.from_numpy(request.get_output_tensor(index).data.copy()) for index in outputs]

    return run
