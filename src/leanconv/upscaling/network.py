"""Networks for super-resolution by name, with their weights."""

from pathlib import Path
from typing import Any

from torch import nn

from leanconv.compression import load
from leanconv.errors import UserError, nearest
from leanconv.models import list_models
from leanconv.training import enlarging_network


def load_network(name: str, weights: str | Path | None, scale: int, **options: Any) -> nn.Module:
    """Build a network that enlarges pictures, with trained weights.

    Args:
        name: One of ``list_models(purpose="superres")``, or a file that :func:`leanconv.save` wrote.
        weights: Its weights or a checkpoint, as ``.safetensors``; ``None`` for such a file, which holds them.
        scale: Factor on both sides; networks that are made for one factor are made for this.
        **options: Other arguments of the network.

    Raises:
        UserError: There is no such network or file, the weights are missing or do not fit, or the network is not made
            for this scale.
    """
    known = list_models(purpose="superres")
    if name.endswith(".safetensors"):
        if weights is not None or options:
            raise UserError(f"`model` {name!r} holds a network with its weights: weights and options do not apply.")
        return load(name)
    if name not in known:
        raise UserError(f"`model` {name!r} does not enlarge pictures: {nearest(name, known)}")
    if weights is None:
        raise UserError(f"`weights` of {name!r} are missing: name a .safetensors file that training has written.")
    return enlarging_network(name, weights, scale, **options)
