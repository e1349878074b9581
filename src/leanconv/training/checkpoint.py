"""Checkpoints: one safetensors file each, with everything that is not a tensor as JSON in its header."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from leanconv.errors import UserError
from leanconv.tensor_file import read_safetensors, write_atomically

LAST, BEST = "last.safetensors", "best.safetensors"

_HEADER = "leanconv.checkpoint"
_VERSION = 1
MODEL, EMA, OPTIMIZER = "model.", "ema.", "optimizer."


@dataclass
class Checkpoint:
    """The state of a run after an epoch.

    Attributes:
        epoch: Epochs finished.
        step: Optimizer steps taken.
        recipe: The recipe's values.
        config: ``model.config`` of the network, None if it has none.
        data: What the network was trained on: its name, classes and number of training images.
        history: One row for each finished epoch.
        model: The network's state dict.
        ema: State of the averaged weights, empty without averaging.
        optimizer: State of the optimizer, as named tensors.
    """

    epoch: int
    step: int
    recipe: dict[str, Any]
    config: dict[str, Any] | None
    data: dict[str, Any]
    history: list[dict[str, Any]]
    model: dict[str, Tensor] = field(repr=False)
    ema: dict[str, Tensor] = field(default_factory=dict, repr=False)
    optimizer: dict[str, Tensor] = field(default_factory=dict, repr=False)


_JSON_FIELDS = ("epoch", "step", "recipe", "config", "data", "history")


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; whatever happens, ``path`` holds either the old file or the whole new one.

    Raises:
        UserError: The file cannot be written, for example because the disk is full.
    """
    header = {name: getattr(checkpoint, name) for name in _JSON_FIELDS} | {"version": _VERSION}
    groups = ((MODEL, checkpoint.model), (EMA, checkpoint.ema), (OPTIMIZER, checkpoint.optimizer))
    tensors = {prefix + name: tensor for prefix, group in groups for name, tensor in group.items()}
    write_atomically(tensors, {_HEADER: json.dumps(header)}, path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        UserError: The file is missing, damaged, or no checkpoint of a training run.
    """
    tensors, metadata = read_safetensors(path)
    if _HEADER not in metadata:
        raise UserError(f"File {path} holds weights only, no checkpoint of a training run to resume.")
    header = json.loads(metadata[_HEADER])
    if header["version"] != _VERSION:
        raise UserError(
            f"Checkpoint {path} has format version {header['version']}, and this leanconv reads {_VERSION}."
        )

    def group(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    fields = {name: header[name] for name in _JSON_FIELDS}
    return Checkpoint(**fields, model=group(MODEL), ema=group(EMA), optimizer=group(OPTIMIZER))


def is_checkpoint(metadata: dict[str, str]) -> bool:
    """Whether the header of a safetensors file is that of a checkpoint."""
    return _HEADER in metadata
