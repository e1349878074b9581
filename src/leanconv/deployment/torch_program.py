"""Files for PyTorch itself: exported programs, and the libraries that AOTInductor compiles from them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from leanconv.deployment.engine import FileEngine, Runner, flattened
from leanconv.deployment.extra import require_compiler
from leanconv.deployment.program import node_values, quiet


@contextmanager
def compiling() -> Iterator[None]:
    """Silence what Inductor says of its own modules while it is imported and compiles."""
    with warnings.catch_warnings():
        # Its fusions for freezing are still modules of TorchScript when they are imported.
        warnings.filterwarnings("ignore", message="`torch.jit.script", category=DeprecationWarning)
        yield


class TorchProgram(FileEngine):
    """An exported program, read by ``torch.export.load`` and run operator by operator."""

    name: str = "torch.export"
    suffix: str = ".pt2"

    def write(self, program: ExportedProgram, path: Path) -> ExportedProgram:
        """Write the program."""
        with quiet():
            torch.export.save(program, path)
        return program

    def open(self, path: Path, threads: int) -> Runner:
        """Return the program as a function of tensors; PyTorch's own setting decides about threads."""
        with quiet():
            return flattened(torch.export.load(path).module())

    def intermediates(self, path: Path, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return every value of the graph."""
        with quiet():
            return node_values(torch.export.load(path), inputs)


class AOTInductor(FileEngine):
    """A shared library that AOTInductor compiles for this machine, with the weights inside."""

    name: str = "aotinductor"
    suffix: str = ".aoti.pt2"

    def require(self) -> None:
        """Make sure that there is a C++ compiler.

        Raises:
            UserError: There is none.
        """
        require_compiler(f"An {self.suffix} file")

    def write(self, program: ExportedProgram, path: Path) -> ExportedProgram:
        """Compile the program; weights are constants, so that they can be laid out for their kernels."""
        with quiet(), compiling():
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs={"freezing": True}
            )
        return program

    def open(self, path: Path, threads: int) -> Runner:
        """Return the library's function; PyTorch's own setting decides about threads."""
        return flattened(torch._inductor.aoti_load_package(str(path)))
