"""Which module of a network is running, and what was spent while it was."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from leanconv.measurement.accesses import tensors_in


class Attribution:
    """A context in which running totals are split among the modules of a network.

    Each meter is a running total.  Whatever it grows by between two calls of modules belongs to the innermost
    module that is running, so the parts add up to the whole: an addition written in a block's ``forward`` is the
    block's own.  Modules that the network does not list as its own count for the one that calls them.

    Args:
        model: The network.  Its modules get no hooks of their own.
        meters: Running totals by name.

    Attributes:
        spent: Amounts by name of the module, in the order modules were first called, then by name of the meter.
        output_shapes: Shape of the first tensor of each module's latest output.
        running: Names of the modules that are running, outermost first.  An exception in the network leaves it
            as it was where the exception was raised.
    """

    def __init__(self, model: nn.Module, meters: Mapping[str, Callable[[], int]] | None = None) -> None:
        self._meters = dict(meters or {})
        self._names = {id(module): name for name, module in model.named_modules()}
        self._read = dict.fromkeys(self._meters, 0)
        self._hooks: list[RemovableHandle] = []
        self.spent: dict[str, dict[str, int]] = {}
        self.output_shapes: dict[str, tuple[int, ...]] = {}
        self.running: list[str] = []

    def __enter__(self) -> Self:
        self._hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _enter(self, module: nn.Module, _: Any) -> None:
        name = self._names.get(id(module))
        if name is not None:
            self._settle()
            self.running.append(name)
            self.spent.setdefault(name, dict.fromkeys(self._meters, 0))

    def _leave(self, module: nn.Module, _: Any, output: Any) -> None:
        name = self._names.get(id(module))
        if name in self.running:
            self._settle()
            # A module that caught an exception of its children leaves theirs behind.
            while self.running.pop() != name:
                pass
            tensor = next(tensors_in(list(output.values()) if isinstance(output, dict) else output), None)
            if tensor is not None:
                self.output_shapes[name] = tuple(tensor.shape)

    def _settle(self) -> None:
        for meter, total in self._meters.items():
            now = total()
            if self.running:
                self.spent[self.running[-1]][meter] += now - self._read[meter]
            self._read[meter] = now
