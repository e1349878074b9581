"""What runs a network: one small protocol, and its form for runtimes that read files."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from leanconv.deployment.extra import require_deploy_extra
from leanconv.deployment.program import export_program
from leanconv.errors import UserError

#: Takes the network's tensors and returns its output tensors, flattened into a list.
Runner = Callable[..., list[Tensor]]


class Engine(Protocol):
    """Runs networks.

    Attributes:
        name: As in ``leanconv.deployment.ENGINES``.
    """

    name: str

    def require(self) -> None:
        """Make sure that the engine is installed.

        Raises:
            UserError: It is not.
        """

    def load(
        self, source: nn.Module | Path, example: Tensor | Sequence[Tensor], *, threads: int | None = None
    ) -> Runner:
        """Return what runs ``source``.

        Args:
            source: The network, in evaluation mode, or a file that this engine reads.
            example: An input, or one tensor per positional argument; a network is prepared for inputs of this shape.
            threads: CPU threads that an operator may use; as many as PyTorch's by default.

        Raises:
            UserError: The engine is not installed, or cannot run the source.
        """


def as_tuple(example: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return one tensor per positional argument."""
    return (example,) if isinstance(example, Tensor) else tuple(example)


def flattened(network: Callable[..., Any]) -> Runner:
    """Return a network as a function that returns the list of its output tensors, without gradients."""

    def run(*inputs: Tensor) -> list[Tensor]:
        # What was compiled without gradients would be compiled once more for inference mode.
        with torch.inference_mode(False), torch.no_grad():
            return [leaf for leaf in tree_leaves(network(*inputs)) if isinstance(leaf, Tensor)]

    return run


class FileEngine(ABC):
    """An engine that runs a file of its own format.

    Attributes:
        name: Of the engine.
        suffix: Of its files.
        packages: What must be installed.
        extra: What of this package installs it.
        int8: Whether its own tool quantises after training.
    """

    name: str
    suffix: str
    packages: tuple[str, ...] = ()
    extra: str = "deploy"
    int8: bool = False

    def require(self) -> None:
        """Make sure that the engine is installed.

        Raises:
            UserError: It is not.
        """
        require_deploy_extra(*self.packages, extra=self.extra)

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages behind the engine."""
        return {name: version(name) for name in self.packages}

    @abstractmethod
    def write(self, program: ExportedProgram, path: Path) -> ExportedProgram:
        """Write a program in this format; return the program whose node names the file keeps."""

    @abstractmethod
    def open(self, path: Path, threads: int) -> Runner:
        """Return what runs a file."""

    def intermediates(self, path: Path, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return what the runtime computes on the way to the output, by the program's node names, if it can say."""
        return {}

    def quantize(self, path: Path, batches: Sequence[tuple[Tensor, ...]]) -> None:
        """Replace a file by its int8 form, calibrated on inputs.

        Raises:
            UserError: This engine has no tool for that.
        """
        raise UserError(f"int8 is made by the tools of ONNX Runtime and OpenVINO (.onnx, .xml), not for {self.suffix}.")

    def load(
        self, source: nn.Module | Path, example: Tensor | Sequence[Tensor], *, threads: int | None = None
    ) -> Runner:
        """Return what runs a file, or a network that is written to a temporary file first."""
        self.require()
        threads = threads or torch.get_num_threads()
        if isinstance(source, Path):
            return self.open(source, threads)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{self.suffix}"
            self.write(export_program(source, as_tuple(example), dynamic_batch=False), path)
            return self.open(path, threads)
