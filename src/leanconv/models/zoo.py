"""Names for networks: registration, listing and building."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from leanconv.errors import UserError, nearest
from leanconv.registry import Registry


@dataclass(frozen=True)
class ModelEntry:
    """What the zoo knows of one name.

    Attributes:
        build: Called with keyword arguments only; ``num_classes`` and ``in_channels`` always among them.
        defaults: Arguments that make this member of its family.
        paper: Authors, year and arXiv number.
        input_size: Channels, height and width of the images it was designed for.
        num_classes: Classes of the data set it was designed for.
    """

    build: Callable[..., nn.Module]
    defaults: dict[str, Any]
    paper: str
    input_size: tuple[int, int, int]
    num_classes: int


MODELS: Registry[ModelEntry] = Registry("model")


def register_model(
    name: str,
    build: Callable[..., nn.Module],
    *,
    paper: str,
    input_size: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
    **defaults: Any,
) -> None:
    """Add a network to the zoo under ``name``; ``defaults`` are passed to ``build``."""
    MODELS.register(ModelEntry(build, defaults, paper, input_size, num_classes), name)


def list_models(pattern: str = "*") -> list[str]:
    """Return the sorted names of the networks that match a shell-style pattern.

    Example:
        >>> list_models("ran?6")
        ['ran26']
    """
    return MODELS.names(pattern)


def create_model(name: str, *, num_classes: int | None = None, in_channels: int = 3, **options: Any) -> nn.Module:
    """Build a network by name, with fresh weights.

    Args:
        name: One of :func:`list_models`.
        num_classes: Outputs; by default those of the data set the network was designed for.
        in_channels: Channels of the images.
        **options: Other arguments of the network's class, such as ``base_width`` or ``features_only``.

    Returns:
        The network in training mode, with attributes ``input_size`` (C, H, W) and ``config``, the JSON-able name and
        arguments from which ``create_model(config["name"], **config["kwargs"])`` builds it again.

    Raises:
        UserError: The name or an option is unknown (near names are suggested), or a value is out of range.
    """
    entry = MODELS[name]
    accepted = [p for p in inspect.signature(entry.build).parameters if p != "self"]
    for option in options:
        if option not in accepted:
            raise UserError(f"Model {name!r} has no option `{option}`: {nearest(option, accepted)}")
    kwargs = {
        "num_classes": entry.num_classes if num_classes is None else num_classes,
        "in_channels": in_channels,
    }
    for option, value in {**kwargs, **options}.items():
        if option in {"num_classes", "in_channels", "base_width"} and (not isinstance(value, int) or value < 1):
            raise UserError(f"`{option}` must be a positive integer, got {value!r}.")
    model: Any = entry.build(**{**entry.defaults, **kwargs, **options})
    model.input_size = (in_channels, *entry.input_size[1:])
    model.config = {"name": name, "kwargs": {**kwargs, **options}}
    built: nn.Module = model
    return built
