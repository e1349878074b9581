"""Tensors in files: written whole or not at all, read with one sentence about what is wrong, and put into networks."""

import contextlib
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from leanconv.errors import UserError


def write_atomically(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    """Write a safetensors file beside ``path`` and put it in its place when it is complete on disk."""
    temporary = path.with_name(path.name + ".tmp")
    seen: set[int] = set()
    unshared = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().contiguous().cpu()
        # safetensors refuses two names for one memory, as tied weights have.
        unshared[name] = plain.clone() if plain.data_ptr() in seen else plain
        seen.add(unshared[name].data_ptr())
    try:
        with temporary.open("wb") as file:
            file.write(save(unshared, metadata={"format": "pt"} | metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        kept = "the previous one is intact" if path.exists() else "there was none before"
        raise UserError(f"File {path} could not be written ({_reason(error)}); {kept}.") from error


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and header of a safetensors file.

    Raises:
        UserError: The file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"File {path} does not exist.")
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"File {path} is damaged or no safetensors file ({_reason(error)}).") from None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())


def fill(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy ``tensors`` into the state of ``model`` after checking that names and shapes are the same."""
    difference = state_difference(model, tensors)
    if difference:
        raise UserError(f"The weights in {path} do not fit the model: {difference}.")
    model.load_state_dict(tensors, strict=False)


def state_difference(model: nn.Module, tensors: dict[str, Tensor]) -> str | None:
    """Return a clause naming the first difference in names or shapes, or None if there is none."""
    state, tensors = model.state_dict(), _as_the_model_names_them(model, tensors)
    shapes = [name for name in state if name in tensors and state[name].shape != tensors[name].shape]
    # Files older than that counter, which only batch norm without a momentum reads, are common.
    missing = [name for name in state if name not in tensors and not name.endswith("num_batches_tracked")]
    unknown = [name for name in tensors if name not in state]
    clauses = []
    if shapes:
        name = shapes[0]
        clauses.append(
            f"{name!r} is {tuple(tensors[name].shape)} in the file and {tuple(state[name].shape)} in the model"
            + _more(shapes)
        )
    if missing:
        clauses.append(f"the file lacks {missing[0]!r}{_more(missing)}")
    if unknown:
        clauses.append(f"the model lacks {unknown[0]!r}{_more(unknown)}")
    return "; ".join(clauses) or None


def _as_the_model_names_them(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors`` after the hooks with which a model translates names other code uses."""
    renamed: dict[str, Tensor] = {}

    def catch(_: nn.Module, state: dict[str, Tensor], *__: Any) -> None:
        renamed.update(state)
        state.clear()  # so that nothing is loaded yet

    handle = model.register_load_state_dict_pre_hook(catch)
    try:
        model.load_state_dict(tensors, strict=False)
    finally:
        handle.remove()
    return renamed


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
