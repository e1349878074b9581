"""Save a network to one safetensors file with the record of what was done to it, and load it again, without pickle."""

import copy
import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from leanconv.compression.record import ATTRIBUTE, VERSION, Record, rebuild
from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.tensor_file import fill, read_safetensors, write_atomically

_HEADER = "leanconv.model"


def save(model: nn.Module, path: str | Path) -> Path:
    """Write a network's weights, and how to build it, to a safetensors file.

    Args:
        model: A network, converted or not.  One of the zoo is built again by name when it is loaded; of any other the
            file holds the conversion alone, and :func:`load` needs the network as it was before.
        path: The file; its folder must exist.

    Returns:
        The path.

    Raises:
        UserError: The file cannot be written; what was there before is kept.
    """
    return save_described(model, path, {"model": getattr(model, "config", None)})


def save_described(model: nn.Module, path: str | Path, description: dict[str, Any]) -> Path:
    """Write a network's weights and its compression with a further description of it, which is JSON-able.

    Raises:
        UserError: The file cannot be written.
    """
    path = Path(path)
    header = {"version": VERSION, "record": getattr(model, ATTRIBUTE, None) or Record().to_dict(), **description}
    if not path.parent.is_dir():
        raise UserError(f"`path` {str(path)!r} is in a folder that does not exist.")
    write_atomically(dict(model.state_dict()), {_HEADER: json.dumps(header)}, path)
    return path


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Read a network that :func:`save` wrote.

    Args:
        path: The file.
        model: For a network that is not of the zoo: a freshly built one as it was before it was converted.  It is not
            changed.

    Returns:
        The network in evaluation mode, in the type its weights have.

    Raises:
        UserError: The file is missing, damaged or holds weights only, the network is not of the zoo and ``model`` is
            not given, or ``model`` is another network.
    """
    path = Path(path)
    tensors, header = read_described(path)
    built = rebuilt(tensors, header, path, model)
    fill(built, tensors, path)
    return built.eval()


def read_described(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights in a file and the description of their network.

    Raises:
        UserError: The file is missing, damaged or holds weights only.
    """
    tensors, metadata = read_safetensors(path)
    if _HEADER not in metadata:
        raise UserError(
            f"File {path} holds weights but does not say of which network: build it and use load_weights(model, path)."
        )
    header: dict[str, Any] = json.loads(metadata[_HEADER])
    return tensors, header


def rebuilt(
    tensors: dict[str, Tensor], header: dict[str, Any], path: Path, model: nn.Module | None = None
) -> nn.Module:
    """Return the network that a file describes, converted, with fresh weights in the type of those in the file.

    Raises:
        UserError: The network is not of the zoo and ``model`` is not given, or ``model`` is another network.
    """
    record = Record.from_dict(header["record"])
    if model is not None:
        built = copy.deepcopy(model)
    elif header["model"] is None:
        raise UserError(f"`model` is needed: the network in {path} is not of the zoo, give a fresh one.")
    else:
        built = create_model(header["model"]["name"], **header["model"]["kwargs"])
    built = rebuild(built, record)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        built = built.to(dtypes.pop())
    return built
