"""Put weights from a file into a network, or say in one sentence why they do not fit."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.training.checkpoint import is_checkpoint, load_checkpoint, read_safetensors


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Load a safetensors file into ``model``: a state dict, or a checkpoint of a training run.

    Of a checkpoint with averaged weights the averaged ones are taken, since they are the evaluated ones.
    Prefixes ``module.`` and ``_orig_mod.``, which wrappers leave in names, are removed.

    Args:
        model: The network, changed in place.
        path: The file.

    Returns:
        ``model``.

    Raises:
        UserError: The file is missing or damaged, or its weights are those of another network; ``model`` is
            then unchanged.
    """
    tensors, metadata = read_safetensors(Path(path))
    if is_checkpoint(metadata):
        checkpoint = load_checkpoint(Path(path))
        refuse_other_model(model, checkpoint.config, Path(path), whole=False)
        tensors = evaluated_weights(checkpoint.model, checkpoint.ema)
    for wrapper in ("_orig_mod.", "module."):
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    fill(model, tensors, Path(path))
    return model


def evaluated_weights(model: dict[str, Tensor], ema: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the averaged weights if there are any, else the raw ones."""
    average = {name.removeprefix("module."): value for name, value in ema.items() if name != "n_averaged"}
    return average or model


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


def refuse_other_model(model: nn.Module, config: dict[str, Any] | None, path: Path, *, whole: bool) -> None:
    """Raise if a checkpoint was made by another network.

    Two networks may have the same parameters and still compute different functions.

    Args:
        model: The network to fill.
        config: ``model.config`` of the checkpoint.
        path: The checkpoint, for the message.
        whole: Whether the arguments must be the same too, or only the name.
    """
    own: dict[str, Any] | None = getattr(model, "config", None)
    if not config or not own:
        return
    own = json.loads(json.dumps(own))  # turns tuples into the lists that the file holds
    if config["name"] != own["name"] or (whole and config != own):
        raise UserError(f"Checkpoint {path} is of {_described(config)} and the model is {_described(own)}.")


def _described(config: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in config.get("kwargs", {}).items())
    return f"{config.get('name')}({arguments})"


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
