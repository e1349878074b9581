"""Bytes moved: what all operators of a forward pass read and write together."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from leanconv.measurement.accesses import bytes_moved_by
from leanconv.measurement.forward import observe
from leanconv.measurement.inputs import example_inputs


class TrafficMode(TorchDispatchMode):
    """Adds up the bytes that the operators run under it read and write.

    Attributes:
        total: Bytes of all operators so far.
        largest: Bytes of the operator that moved most.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.largest = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operator and add what it moved."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        moved = bytes_moved_by(func, args, kwargs, out)
        self.total += moved
        self.largest = max(self.largest, moved)
        return out


def bytes_moved(
    model: nn.Module,
    input_size: Sequence[int] | None = None,
    *,
    example: Tensor | Sequence[Tensor] | None = None,
) -> int:
    """Return the bytes that the operators of one forward pass read and write.

    Every operator reads each input once and writes each output once, as eager execution without a cache would;
    views are free, in-place operators read and write.  Divided by the bandwidth of the memory this is a time that
    networks of many cheap operators cannot beat unless their operators are fused.

    Args:
        model: Any module; it is left as found.
        input_size: Shape of the input, batch first (see :func:`leanconv.measurement.measure`).
        example: Input tensors instead of a size.

    Raises:
        UserError: The input does not fit the network.
    """
    traffic: TrafficMode = observe(model, example_inputs(model, input_size, example), lambda *_: TrafficMode())
    return traffic.total
