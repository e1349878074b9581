"""Eight-bit integers after training, through each runtime's own tool, calibrated on inputs."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from torch import Tensor

from leanconv.deployment.extra import require_deploy_extra

#: Most channels that images have.
_IMAGE_CHANNELS = 4


def quantize_onnx(path: Path, batches: Sequence[tuple[Tensor, ...]]) -> None:
    """Replace an ONNX file by its int8 form.

    ONNX Runtime's static quantisation: pairs of QuantizeLinear and DequantizeLinear around the operators, weights
    signed with one scale an output channel, activations unsigned.  Convolutions of images stay in floating point: of
    so few channels they are slower in integers (3x3 of 16x3x32x32 to 16 channels: 303 µs instead of 97).

    Args:
        path: The file.
        batches: Inputs that show the ranges of activations.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Gives one batch after the other by the names of the inputs."""

        def __init__(self, names: list[str]) -> None:
            self.feeds = iter(
                [dict(zip(names, (tensor.numpy() for tensor in batch), strict=True)) for batch in batches]
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    import onnx

    model = onnx.load(str(path))
    quantised = path.with_name(f"int8-{path.name}")
    with _silent_root_logger():
        quantize_static(
            model,
            str(quantised),
            Reader([value.name for value in model.graph.input]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_image_convolutions(model),
        )
    os.replace(quantised, path)


def _image_convolutions(model: Any) -> list[str]:
    """Return the names of the convolutions that read no more channels than images have."""
    weights = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and weights.get(node.input[1], (0, _IMAGE_CHANNELS + 1))[1] <= _IMAGE_CHANNELS
        and all(attribute.i == 1 for attribute in node.attribute if attribute.name == "group")
    ]


@contextmanager
def _silent_root_logger() -> Iterator[None]:
    """Keep ONNX Runtime from advising, through the root logger, a step that PyTorch's exporter has already done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def quantize_openvino(path: Path, batches: Sequence[tuple[Tensor, ...]]) -> None:
    """Replace an OpenVINO file by its int8 form with NNCF's post-training quantisation.

    Args:
        path: The ``.xml`` file; its ``.bin`` is replaced, too.
        batches: Inputs that show the ranges of activations.

    Raises:
        UserError: NNCF is not installed.
    """
    require_deploy_extra("nncf")
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(path)
    inputs = [tuple(tensor.numpy() for tensor in batch) for batch in batches]
    dataset = nncf.Dataset(inputs, lambda batch: batch if len(batch) > 1 else batch[0])
    # Its bars are progress, and standard output may be read by a program.
    with redirect_stdout(sys.stderr):
        quantised = nncf.quantize(model, dataset, subset_size=len(inputs))
    # The old weights may still be mapped from the file of that name.
    separate = path.with_name(f"int8-{path.name}")
    openvino.save_model(quantised, separate, compress_to_fp16=False)
    del model, quantised
    os.replace(separate.with_suffix(".bin"), path.with_suffix(".bin"))
    os.replace(separate, path)
