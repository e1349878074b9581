"""What one aten operator reads and writes in memory, from its schema and the tensors it was called with.

The model is that of eager execution with no cache: each operator reads each of its inputs once and writes each of
its outputs once.  Operators that return another view of their input (``view``, ``permute``, ``split``, …) and those
that allocate without writing (``empty``) move nothing.
"""

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch._ops import OpOverload

# In-place operators whose old contents do not matter.
_OVERWRITING = {"aten::copy_", "aten::fill_", "aten::zero_", "aten::normal_", "aten::uniform_"}
_ALLOCATING = {
    "aten::empty",
    "aten::empty_like",
    "aten::empty_permuted",
    "aten::empty_strided",
    "aten::new_empty",
    "aten::new_empty_strided",
}
# Of their first tensor these read the elements that were asked for, not all.
_SELECTING = {"aten::embedding", "aten::gather", "aten::index", "aten::index_select", "aten::take"}


def bytes_of(tensor: Tensor) -> int:
    """Return the bytes of the distinct elements of a tensor; expanded axes hold one element."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(1 if stride == 0 and size > 0 else size for size, stride in pairs) * tensor.element_size()


def outputs(func: OpOverload, args: tuple[Any, ...], out: Any) -> list[Tensor]:
    """Return the tensors an operator returned that it really computed."""
    tensors = list(tensors_in(out))
    # In evaluation mode no batch statistics are saved; the meta kernels return them all the same.
    name = func._schema.name
    evaluation = name == "aten::native_batch_norm" and not args[5]
    return tensors[:1] if evaluation or name == "aten::_native_batch_norm_legit_no_training" else tensors


def bytes_moved_by(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Return the bytes one call of an operator reads plus those it writes.

    Args:
        func: The operator.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        out: What it returned.
    """
    name = func._schema.name
    if name in _ALLOCATING:
        return 0
    inputs: dict[object, Tensor] = {}
    changed: dict[object, Tensor] = {}
    read_back = 0
    for index, argument in enumerate(func._schema.arguments):
        value = args[index] if index < len(args) else kwargs.get(argument.name)
        written = argument.alias_info is not None and argument.alias_info.is_write
        for tensor in tensors_in(value):
            (changed if written else inputs)[_place(tensor)] = tensor
            if written and not argument.is_out and name not in _OVERWRITING:
                read_back += bytes_of(tensor)
    storages = {_storage(tensor) for tensor in [*inputs.values(), *changed.values()]}
    returned = outputs(func, args, out)
    new = [tensor for tensor in returned if _storage(tensor) not in storages]
    if returned and not new and not changed:
        return 0
    written_bytes = sum(map(bytes_of, [*new, *changed.values()]))
    read = [bytes_of(tensor) for tensor in inputs.values()]
    if name in _SELECTING and read:
        read[0] = min(read[0], written_bytes)
    return sum(read) + read_back + written_bytes


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in an operator's argument or result: a tensor, or a list of tensors and Nones."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _place(tensor: Tensor) -> object:
    return _storage(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
