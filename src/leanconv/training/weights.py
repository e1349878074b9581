"""Put weights from a file into a network, or say in one sentence why they do not fit."""

import json
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from leanconv.errors import UserError, nearest
from leanconv.models import MODELS, create_model, list_models
from leanconv.models.superres import BICUBIC, Bicubic, check_scale
from leanconv.tensor_file import fill, read_safetensors
from leanconv.training.checkpoint import is_checkpoint, load_checkpoint


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


def enlarging_network(
    name: str, weights: str | Path | None = None, scale: int | None = None, **options: Any
) -> nn.Module:
    """Build a network for super-resolution and load its weights.

    A checkpoint knows the arguments, and with them the scales, its network was trained with, and is built by them.

    Args:
        name: One of ``list_models(purpose="superres")``, or ``"bicubic"`` for the baseline without a network.
        weights: Its weights, as for :func:`load_weights`; the baseline has none.
        scale: The factor it is wanted for; by default any that it is trained for.
        **options: Arguments of the network that hold against a checkpoint's.

    Returns:
        The network in evaluation mode; see :class:`~leanconv.models.superres.SuperResolution` for what it takes.

    Raises:
        UserError: It is unknown or enlarges nothing, was not trained for the scale, or the weights are missing,
            damaged or those of another network.
    """
    if name == BICUBIC:
        if weights is not None:
            raise UserError(f"{BICUBIC!r} is no network and has no weights: leave out {str(weights)!r}.")
        return Bicubic().eval()
    enlarging = list_models(purpose="superres")
    if name not in enlarging:
        what = "enlarges no images" if name in MODELS else "is unknown"
        raise UserError(f"Model {name!r} {what}: {nearest(name, [*enlarging, BICUBIC])}")
    if weights is None:
        raise UserError(f"Model {name!r} knows nothing without weights: give a .safetensors file of them.")
    _, metadata = read_safetensors(Path(weights))
    config = load_checkpoint(Path(weights)).config if is_checkpoint(metadata) else None
    made_with = config["kwargs"] if config and config["name"] == name else {}
    if config is None and scale is not None and "scale" in signature(MODELS[name].build).parameters:
        made_with = {"scale": scale}
    network = create_model(name, **{**made_with, **options})
    if scale is not None:
        check_scale(network, scale)
    return load_weights(network, weights).eval()


def evaluated_weights(model: dict[str, Tensor], ema: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the averaged weights if there are any, else the raw ones."""
    average = {name.removeprefix("module."): value for name, value in ema.items() if name != "n_averaged"}
    return average or model


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
