"""Names for networks: registration, listing and building."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from leanconv.errors import UserError, nearest
from leanconv.registry import Registry

#: What a network is for: telling classes of images apart, or enlarging images.
Purpose = Literal["classify", "superres"]


@dataclass(frozen=True)
class Source:
    """Where a network comes from, for messages and the documentation table.

    Attributes:
        paper: Authors, year and arXiv number.
        certain: What the paper or its authors' code settles.
        chosen: Our reading of what they leave open; empty where nothing is.
    """

    paper: str
    certain: str
    chosen: str = ""


@dataclass(frozen=True)
class ModelEntry:
    """What the zoo knows of one name.

    Attributes:
        build: Called with keyword arguments only; for a classifier ``num_classes`` and ``in_channels`` always among
            them.
        source: The paper, and what of the network is certain or chosen.
        published: Parameters and MACs as the source prints them, if it does.
        input_size: Channels, height and width of the images it was designed for (channels and length in 1-D).
        num_classes: Classes of the data set it was designed for; ``None`` if it tells none apart.
        small: Arguments that make a small member of the family, for trials and tests.
        defaults: Arguments that make this member of its family.
        purpose: ``"classify"``, or ``"superres"`` for networks that enlarge images
            (:class:`~leanconv.models.superres.SuperResolution`).
    """

    build: Callable[..., nn.Module]
    source: Source
    published: str = ""
    input_size: tuple[int, ...] = (3, 32, 32)
    num_classes: int | None = 10
    small: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    purpose: Purpose = "classify"


MODELS: Registry[ModelEntry] = Registry("model")


def register_model(
    name: str,
    build: Callable[..., nn.Module],
    source: Source,
    *,
    published: str = "",
    input_size: tuple[int, ...] = (3, 32, 32),
    num_classes: int | None = 10,
    small: Mapping[str, Any] | None = None,
    purpose: Purpose = "classify",
    **defaults: Any,
) -> None:
    """Add a network to the zoo; the arguments are those of :class:`ModelEntry`, ``defaults`` go to ``build``."""
    MODELS.register(ModelEntry(build, source, published, input_size, num_classes, small or {}, defaults, purpose), name)


def list_models(pattern: str = "*", *, purpose: Purpose | None = None) -> list[str]:
    """Return the sorted names of the networks that match a shell-style pattern.

    Args:
        pattern: Such as ``"ran*"``.
        purpose: Only classifiers (``"classify"``), or only networks that enlarge images (``"superres"``).

    Example:
        >>> list_models("ran?6")
        ['ran26']
    """
    return [name for name in MODELS.names(pattern) if purpose in (None, MODELS[name].purpose)]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: tuple[int, ...] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network by name, with fresh weights.

    Args:
        name: One of :func:`list_models`.
        num_classes: Outputs of a classifier; by default those of the data set it was designed for.
        in_channels: Channels of the images; by default those the network was designed for, mostly 3.  Networks that
            enlarge images take 1, the luma plane.
        image_size: Height and width of the images it will see, to have them checked now, and weights made for them
            where those depend on it (DiCENet's do); by default the size it was designed for (32 pixels a side with
            ``stem="cifar"``).
        **options: Other arguments of the network's class, such as ``base_width`` or ``features_only``.

    Returns:
        The network in training mode, with attributes ``input_size`` (C, H, W) and ``config``, the JSON-able name and
        arguments from which ``create_model(config["name"], **config["kwargs"])`` builds it again.

    Raises:
        UserError: The name or an option is unknown (near names are suggested), a value is out of range, or the
            images are smaller than the network's stride.
    """
    entry = MODELS[name]
    accepted = [p for p in inspect.signature(entry.build).parameters if p != "self"]
    for option in options:
        if option not in accepted:
            raise UserError(f"Model {name!r} has no option `{option}`: {nearest(option, accepted)}")
    if entry.purpose == "superres":
        _check_enlarges_luma(name, num_classes, in_channels)
    in_channels = entry.input_size[0] if in_channels is None else in_channels
    given = {"num_classes": entry.num_classes if num_classes is None else num_classes, "in_channels": in_channels}
    kwargs = {} if entry.purpose == "superres" else given
    for option, value in {**kwargs, **options}.items():
        if option in {"num_classes", "in_channels", "base_width"} and (not isinstance(value, int) or value < 1):
            raise UserError(f"`{option}` must be a positive integer, got {value!r}.")
    _check_depths(entry, options)
    if image_size is not None:
        _check_image_size(name, entry, {**entry.defaults, **options}, image_size)
        if "image_size" in accepted:
            options["image_size"] = image_size
    model: Any = entry.build(**{**entry.defaults, **kwargs, **options})
    design_size = (32, 32) if options.get("stem") == "cifar" else entry.input_size[1:]
    model.input_size = (in_channels, *(image_size or design_size))
    model.config = {"name": name, "kwargs": {**kwargs, **options}}
    built: nn.Module = model
    return built


def _check_enlarges_luma(name: str, num_classes: int | None, in_channels: int | None) -> None:
    """Refuse what a network that enlarges the luma plane does not have."""
    if num_classes is not None:
        raise UserError(f"Model {name!r} enlarges images and tells no classes apart: leave out `num_classes`.")
    if in_channels not in (None, 1):
        raise UserError(f"Model {name!r} takes one channel, the luma plane, got `in_channels` {in_channels}.")


def _check_depths(entry: ModelEntry, options: Mapping[str, Any]) -> None:
    """Refuse depths that are not one positive integer for each stage of the network."""
    usual, given = entry.defaults.get("depths"), options.get("depths")
    if usual is None or given is None:
        return
    if not isinstance(given, Sequence) or len(given) != len(usual) or not all(type(d) is int and d > 0 for d in given):
        raise UserError(
            f"`depths` must be {len(usual)} positive integers, one a stage, got {given!r}; {tuple(usual)} would work."
        )


def _check_image_size(name: str, entry: ModelEntry, options: dict[str, Any], image_size: tuple[int, ...]) -> None:
    """Refuse images below the network's stride, found by tracing shapes of the design size without any compute."""
    if not isinstance(image_size, Sequence):
        raise UserError(f"`image_size` must be height and width, got {image_size!r}.")
    if "features_only" not in inspect.signature(entry.build).parameters:
        return
    with torch.device("meta"):
        network = entry.build(**{**options, "features_only": True}).eval()
        last = network(torch.empty(1, *entry.input_size))[-1]
    stride = max(-(-size // out) for size, out in zip(entry.input_size[1:], last.shape[2:], strict=True))
    if min(image_size) < stride:
        raise UserError(
            f"`image_size` {tuple(image_size)} is smaller than the stride {stride} of {name!r}; "
            f"images of at least {stride} pixels a side would work."
        )
