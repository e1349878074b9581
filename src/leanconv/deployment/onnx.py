"""ONNX files, written by PyTorch's exporter and run by ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from leanconv.deployment.engine import FileEngine, Runner
from leanconv.deployment.program import quiet
from leanconv.errors import UserError

#: What the exporter notes at every node of the graph; the rest (code, paths on this machine) is nobody's business.
_LAYER_NOTE = "pkg.torch.onnx.name_scopes"
#: The newest operator set that every runtime in use reads, and the exporter's own.
OPSET = 20


def write_onnx(program: ExportedProgram, path: Path) -> ExportedProgram:
    """Write an ONNX file with a batch axis called ``batch``.

    Args:
        program: The network.
        path: The file.

    Returns:
        The decomposed program: values in the file have the names of its nodes.

    Raises:
        UserError: An operator has no ONNX form.
    """
    try:
        with quiet():
            written = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=OPSET)
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split()).split(". ")[0]
        raise UserError(f"The model cannot be exported to ONNX: {reason}.") from error
    assert written is not None
    assert written.exported_program is not None
    batch = _symbol(written)
    for node in written.model.graph:
        for note in [key for key in node.metadata_props if key != _LAYER_NOTE]:
            del node.metadata_props[note]
    model = written.model_proto
    if batch is not None:
        for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
            for dimension in value.type.tensor_type.shape.dim:
                if dimension.dim_param == batch:
                    dimension.dim_param = "batch"
    path.write_bytes(model.SerializeToString())
    return written.exported_program


def _symbol(written: Any) -> str | None:
    """Return the exporter's name of the batch axis."""
    first = written.model_proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    return str(first) or None


class ONNXRuntime(FileEngine):
    """ONNX Runtime on the CPU."""

    name: str = "onnxruntime"
    suffix: str = ".onnx"
    packages: tuple[str, ...] = ("onnx", "onnxscript", "onnxruntime")
    int8: bool = True

    def write(self, program: ExportedProgram, path: Path) -> ExportedProgram:
        """Write an ONNX file."""
        return write_onnx(program, path)

    def open(self, path: Path, threads: int) -> Runner:
        """Return a session as a function of tensors."""
        session = self._session(str(path), threads)

        def run(*inputs: Tensor) -> list[Tensor]:
            return [torch.from_numpy(value) for value in session.run(None, _feed(session, inputs))]

        return run

    def intermediates(self, path: Path, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return every floating-point value of the graph."""
        import onnx

        model = onnx.load(str(path))
        asked = {output.name for output in model.graph.output}
        known = [value for value in model.graph.value_info if value.name not in asked]
        computed = {name for node in model.graph.node for name in node.output}
        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
        model.graph.output.extend(
            value for value in known if value.name in computed and value.type.tensor_type.elem_type in floats
        )
        session = self._session(model.SerializeToString(), 1)
        names = [output.name for output in session.get_outputs()]
        values = session.run(None, _feed(session, inputs))
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    def quantize(self, path: Path, batches: Sequence[tuple[Tensor, ...]]) -> None:
        """Replace a file by its int8 form with ONNX Runtime's static quantisation."""
        from leanconv.deployment.quantization import quantize_onnx

        quantize_onnx(path, batches)

    @staticmethod
    def _session(source: str | bytes, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _feed(session: Any, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    return {value.name: tensor.detach().numpy() for value, tensor in zip(session.get_inputs(), inputs, strict=True)}
