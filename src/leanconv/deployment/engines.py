"""All engines, by name and by the suffix of their files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from leanconv.deployment.engine import Engine, FileEngine, Runner, as_tuple, flattened
from leanconv.deployment.executorch import ExecuTorch
from leanconv.deployment.extra import require_compiler
from leanconv.deployment.onnx import ONNXRuntime
from leanconv.deployment.openvino import OpenVINO
from leanconv.deployment.torch_program import AOTInductor, TorchProgram, compiling
from leanconv.errors import UserError, nearest


class Eager:
    """PyTorch, operator by operator."""

    name = "eager"

    def require(self) -> None:
        """Return: PyTorch is always there."""

    def load(
        self, source: nn.Module | Path, example: Tensor | Sequence[Tensor], *, threads: int | None = None
    ) -> Runner:
        """Return the network as a function of tensors; PyTorch's own setting decides about threads."""
        return flattened(_network(source, self.name))


class Compile:
    """PyTorch with ``torch.compile`` and weights as constants, which are laid out for their kernels once.

    Not frozen, pointwise convolutions of few images go to a matrix product that takes twice as long on one thread.
    """

    name = "compile"

    def require(self) -> None:
        """Make sure that there is a C++ compiler.

        Raises:
            UserError: There is none.
        """
        require_compiler("torch.compile")

    def load(
        self, source: nn.Module | Path, example: Tensor | Sequence[Tensor], *, threads: int | None = None
    ) -> Runner:
        """Return the compiled network as a function of tensors; PyTorch's own setting decides about threads."""
        with compiling(), torch._inductor.config.patch(freezing=True):
            run = flattened(torch.compile(_network(source, self.name), dynamic=False))
            run(*as_tuple(example))
        return run


def _network(source: nn.Module | Path, name: str) -> nn.Module:
    if isinstance(source, Path):
        raise UserError(f"Engine {name!r} runs networks, not files such as {source.name!r}.")
    return source


FILE_ENGINES: tuple[FileEngine, ...] = (ONNXRuntime(), OpenVINO(), TorchProgram(), AOTInductor(), ExecuTorch())
#: Every engine by name.
ENGINES: dict[str, Engine] = {
    Eager.name: Eager(),
    Compile.name: Compile(),
    **{engine.name: engine for engine in FILE_ENGINES},
}


def engine_named(name: str) -> Engine:
    """Return an engine.

    Raises:
        UserError: The name is unknown.
    """
    if name not in ENGINES:
        raise UserError(f"Engine {name!r} is not known: {nearest(name, ENGINES)}")
    return ENGINES[name]


def engine_for(path: Path) -> FileEngine:
    """Return the engine that a file is for, by its suffix; of two that fit, the longer one counts.

    Raises:
        UserError: No engine has such files.
    """
    fitting = [engine for engine in FILE_ENGINES if path.name.endswith(engine.suffix) and path.name != engine.suffix]
    if not fitting:
        known = ", ".join(f"{engine.suffix} ({engine.name})" for engine in FILE_ENGINES)
        raise UserError(f"`path` {str(path)!r} has a suffix that no export writes: use {known}.")
    return max(fitting, key=lambda engine: len(engine.suffix))
