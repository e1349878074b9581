"""The verb ``export``: a network into a file that another runtime runs, and proof that it computes the same."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from leanconv.deployment.engine import FileEngine, Runner, as_tuple
from leanconv.deployment.engines import Eager, engine_for
from leanconv.deployment.export_report import ExportReport
from leanconv.deployment.files import written_together
from leanconv.deployment.program import export_program, with_rows
from leanconv.deployment.slow_forms import lint_program
from leanconv.deployment.verification import INT8_TOLERANCE, TOLERANCES, Parity, first_difference, parity
from leanconv.errors import UserError
from leanconv.measurement import Latency, environment, measure_latency, paired_ratio
from leanconv.measurement.arguments import positive
from leanconv.measurement.forward import run as run_checked
from leanconv.measurement.forward import uncompiled
from leanconv.measurement.inputs import example_inputs
from leanconv.measurement.placement import cpu_threads, evaluating, placed

_EAGER = "eager"
#: Rows by which the second batch size that is verified exceeds the example's.
_MORE_ROWS = 2


def export(
    model: nn.Module,
    path: str | Path,
    example: Tensor | Sequence[Tensor] | None = None,
    *,
    verify: bool = True,
    int8: Iterable[Tensor | Sequence[Tensor]] | None = None,
    accuracy: Iterable[tuple[Tensor, Tensor]] | None = None,
    dynamic_batch: bool = True,
    tolerance: float | None = None,
    threads: int | None = None,
    rounds: int = 20,
) -> ExportReport:
    """Write a network for another runtime, in evaluation mode, and prove that it computes the same there.

    The file is loaded back in its runtime.  Outputs are compared with PyTorch's on the example and on random inputs
    at two batch sizes (with ``int8`` on the example and on calibration inputs: random ones lie outside the
    calibrated ranges), and times are taken in turns with eager PyTorch.  A file that fails is not left behind, and
    an older one of that name stays as it was.  Networks elsewhere are exported and verified as a copy on the CPU.

    Args:
        model: The network; :func:`leanconv.fold` makes most of them faster first.
        path: The file; its suffix says for what: ``.onnx`` for ONNX Runtime, ``.xml`` for OpenVINO, ``.pt2`` for
            ``torch.export.load``, ``.aoti.pt2`` for AOTInductor (compiled here, which needs a C++ compiler), ``.pte``
            for ExecuTorch.
        example: An input, or one tensor per positional argument, batch first.  By default a random image of
            ``model.input_size`` where the network has that attribute, else ``(1, 3, 32, 32)``.
        verify: Whether to compare and time.
        int8: Inputs to calibrate on: the export then computes in 8-bit integers (``.onnx`` and ``.xml``).
        accuracy: Batches ``(inputs, labels)`` on which to count top-1 hits of PyTorch and of the export.
        dynamic_batch: Whether the file takes any batch size.
        tolerance: Largest difference of outputs, as a share of the largest output; by default 1e-4 in float32, and
            0.5 in int8, where it only catches a calibration that failed.
        threads: CPU threads that an operator may use while timed; as many as PyTorch's by default.
        rounds: Timed samples.

    Raises:
        UserError: The path has an unknown suffix or cannot be written, an extra is missing, the example does not
            fit, the control flow depends on data, an operator has no form there, or the outputs differ.

    Example:
        >>> report = export(create_model("ran26").eval(), "net.onnx", example=x)  # doctest: +SKIP
        >>> report.speedup.median  # doctest: +SKIP
    """
    positive("rounds", rounds)
    if threads is not None:
        positive("threads", threads)
    path = Path(path)
    engine = engine_for(path)
    engine.require()
    if int8 is not None and not engine.int8:
        raise UserError(f"`int8` is made by the tools of ONNX Runtime and OpenVINO (.onnx, .xml), not for {path.name}.")
    model = placed(uncompiled(model), device=torch.device("cpu"))
    inputs = _batched(example_inputs(model, example=example, device=torch.device("cpu")))
    calibration = None if int8 is None else _calibration(int8, inputs)
    with evaluating(model), torch.no_grad(), written_together(path) as temporary:
        run_checked(model, inputs, "example")
        program = export_program(model, inputs, dynamic_batch=dynamic_batch)
        decomposed = engine.write(program, temporary)
        allowed = tolerance if tolerance is not None else _tolerance(inputs, calibration is not None)
        runners = {_EAGER: Eager().load(model, inputs)}
        if calibration is not None:
            if verify:
                runners[f"{engine.name} float"] = engine.load(temporary, inputs, threads=threads)
            engine.quantize(temporary, calibration)
        found: list[Parity] = []
        latency: dict[str, Latency] = {}
        scores = None
        if verify or accuracy is not None:
            runners[engine.name] = engine.load(temporary, inputs, threads=threads)
        if verify:
            cases = _cases(inputs, calibration, dynamic_batch)
            for name, case in cases:
                found.append(parity(name, runners[_EAGER](*case), runners[engine.name](*case), allowed))
                if not found[-1].holds:
                    raise _parting(engine, temporary, decomposed, case, found[-1])
            latency = measure_latency(runners, inputs, rounds=rounds, threads=threads)
        if accuracy is not None:
            scores = _accuracy({name: runners[name] for name in (_EAGER, engine.name)}, accuracy)
        size = sum(file.stat().st_size for file in temporary.parent.iterdir())
        findings = lint_program(program, engine.suffix, int8=calibration is not None)
    with cpu_threads(threads):
        machine = environment("cpu")
    own = latency.get(engine.name)
    float_export = latency.get(f"{engine.name} float")
    return ExportReport(
        path=str(path),
        engine=engine.name,
        model=_name(model),
        input_shapes=tuple(tuple(tensor.shape) for tensor in inputs),
        dynamic_batch=dynamic_batch,
        dtype="int8" if calibration is not None else str(inputs[0].dtype).removeprefix("torch."),
        bytes=size,
        parity=tuple(found),
        latency=latency,
        speedup=paired_ratio(latency[_EAGER], own) if own else None,
        int8_speedup=paired_ratio(float_export, own) if own and float_export else None,
        accuracy=scores,
        findings=findings,
        environment={**machine, **engine.versions()},
    )


def _batched(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the inputs if they are batches of one size.

    Raises:
        UserError: One has no batch axis, or another batch size, or there is no row.
    """
    rows = {tensor.shape[0] if tensor.dim() else 0 for tensor in inputs}
    if len(rows) != 1 or 0 in rows:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise UserError(f"`example` {shapes} must have the batch first, of one size and at least one row.")
    return inputs


def _calibration(batches: Iterable[Tensor | Sequence[Tensor]], inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """Return the calibration inputs on the CPU.

    Raises:
        UserError: There are none, or they have another shape than the example.
    """
    found = [tuple(tensor.detach().cpu() for tensor in as_tuple(batch)) for batch in batches]
    if not found:
        raise UserError("`int8` gives no inputs to calibrate on: pass batches such as [x].")
    for batch in found:
        if [tensor.shape[1:] for tensor in batch] != [tensor.shape[1:] for tensor in inputs]:
            raise UserError(
                f"`int8` has inputs {[tuple(tensor.shape) for tensor in batch]}, and the example "
                f"{[tuple(tensor.shape) for tensor in inputs]}: only the batch sizes may differ."
            )
    return found


def _tolerance(inputs: tuple[Tensor, ...], int8: bool) -> float:
    if int8:
        return INT8_TOLERANCE
    return max((TOLERANCES[tensor.dtype] for tensor in inputs if tensor.is_floating_point()), default=1e-4)


def _cases(
    inputs: tuple[Tensor, ...], calibration: list[tuple[Tensor, ...]] | None, dynamic_batch: bool
) -> list[tuple[str, tuple[Tensor, ...]]]:
    """Return what to compare on: the example and other inputs, at two batch sizes where the file takes them."""
    rows = inputs[0].shape[0]
    other = rows + _MORE_ROWS if dynamic_batch else rows
    cases = [("given", inputs)]
    if calibration is not None:
        return [*cases, ("calibration", tuple(with_rows(tensor, other) for tensor in calibration[0]))]
    generator = torch.Generator().manual_seed(0)
    sizes = dict.fromkeys((rows, other))
    drawn = (tuple(_random(with_rows(tensor, size), generator) for tensor in inputs) for size in sizes)
    return [*cases, *(("random", case) for case in drawn)]


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return normal values for floating-point inputs; others, which may be indices, in another order of their rows."""
    if like.is_floating_point():
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)
    return like[torch.randperm(like.shape[0], generator=generator)]


def _parting(
    engine: FileEngine, path: Path, program: ExportedProgram, case: tuple[Tensor, ...], failed: Parity
) -> UserError:
    """Return the error that says by how much and from where on a runtime is off."""
    clause = first_difference(program, case, engine.intermediates(path, case), failed.tolerance)
    where = f"they part in {clause}" if clause else "only the result is known to differ"
    return UserError(
        f"The outputs of {engine.name} differ from PyTorch's by {failed.relative:.2g} of the largest (tolerance "
        f"{failed.tolerance:g}) on {failed.inputs} inputs of batch {failed.batch}: {where}; {path.name} was not "
        "written."
    )


def _accuracy(runners: dict[str, Runner], batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return the share of rows whose largest output is the labelled one, by engine.

    Raises:
        UserError: There is no row.
    """
    hits = dict.fromkeys(runners, 0)
    rows = 0
    for inputs, labels in batches:
        rows += len(labels)
        for name, run in runners.items():
            hits[name] += int((run(inputs.cpu())[0].argmax(1) == labels.cpu()).sum())
    if rows == 0:
        raise UserError("`accuracy` gives no labelled inputs: pass batches (inputs, labels).")
    return {name: count / rows for name, count in hits.items()}


def _name(model: nn.Module) -> str:
    config = getattr(model, "config", None)
    name = config.get("name") if isinstance(config, dict) else None
    return name if isinstance(name, str) else type(model).__name__
