"""ExecuTorch programs for phones and boards, whose kernels are those of XNNPACK."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from leanconv.deployment.engine import FileEngine, Runner
from leanconv.deployment.program import quiet
from leanconv.errors import UserError


class _Method:
    """A program's method, with what it reads its weights from."""

    def __init__(self, content: bytes) -> None:
        from executorch.runtime import Runtime

        self.content = content
        self.program: Any = Runtime.get().load_program(content)
        self.method: Any = self.program.load_method("forward")

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        found = self.method.execute([tensor.detach().contiguous() for tensor in inputs])
        # Every result is written to the same memory.
        return [leaf.clone() for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


@contextmanager
def _silent() -> Iterator[None]:
    """Silence what ExecuTorch's own modules do that is deprecated."""
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


class ExecuTorch(FileEngine):
    """ExecuTorch on the CPU, operators delegated to XNNPACK where it has them."""

    name: str = "executorch"
    suffix: str = ".pte"
    packages: tuple[str, ...] = ("executorch",)
    extra: str = "executorch"

    def write(self, program: ExportedProgram, path: Path) -> ExportedProgram:
        """Lower the program and write it.

        Raises:
            UserError: An operator has no form there.
        """
        try:
            with _silent():
                from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
                from executorch.exir import to_edge_transform_and_lower

                lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        except (RuntimeError, NotImplementedError, AssertionError, ValueError) as error:
            reason = " ".join(str(error).split()).split(". ")[0]
            raise UserError(f"The model cannot be lowered to ExecuTorch: {reason}.") from error
        path.write_bytes(lowered.buffer)
        return program

    def open(self, path: Path, threads: int) -> Runner:
        """Return the program's method; the threads are those of all programs in this process."""
        with _silent():
            from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

            _unsafe_reset_threadpool(threads)
            return _Method(path.read_bytes())
