"""The record of what was done to a network: JSON-able, and enough to do it to a fresh one."""

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from leanconv.compression.methods import method_from_dict
from leanconv.compression.walk import convolutions, replaced
from leanconv.errors import UserError, nearest
from leanconv.ops.structured import Conv, geometry_of

VERSION = 1
#: Attribute in which a converted network carries its record.
ATTRIBUTE = "compression_record"


@dataclass(frozen=True)
class LayerRecord:
    """One convolution that was replaced.

    Attributes:
        name: Its path in the network.
        method: The method's name and arguments.
        rank: Ranks it got.
        bias: Whether the replacement adds a bias.
        geometry: Channels, groups and spatial arguments of the convolution.
        error: Relative error of its outputs on the calibration inputs (of its weights, where there were none).
        samples: Output samples it was fitted on.
    """

    name: str
    method: dict[str, Any]
    rank: tuple[int, ...]
    bias: bool
    geometry: dict[str, Any]
    error: float
    samples: int


@dataclass(frozen=True)
class Record:
    """What was done to a network.

    Attributes:
        layers: The convolutions that were replaced, in the order they were.
        left: Convolutions that were to be replaced and were not, with the reason.
        version: Of this format.
    """

    layers: tuple[LayerRecord, ...] = ()
    left: dict[str, str] = field(default_factory=dict)
    version: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return plain, JSON-able objects."""
        plain = asdict(self)
        plain["layers"] = [{**layer, "rank": list(layer["rank"])} for layer in plain["layers"]]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Record":
        """Return the record that :meth:`to_dict` wrote.

        Raises:
            UserError: It has another version.
        """
        if plain.get("version") != VERSION:
            raise UserError(f"The record has version {plain.get('version')}, and this leanconv reads {VERSION}.")
        layers = tuple(LayerRecord(**{**layer, "rank": tuple(layer["rank"])}) for layer in plain["layers"])
        return cls(layers, dict(plain["left"]))


def described(conv: Conv) -> dict[str, Any]:
    """Return channels, groups and geometry of a convolution, JSON-able."""
    spatial = vars(geometry_of(conv)).items()
    return {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "groups": conv.groups,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in spatial},
    }


def rebuild(model: nn.Module, record: Record) -> nn.Module:
    """Replace the recorded layers of a fresh network, with fresh weights, and return the network.

    Args:
        model: The network as it was before it was converted; changed in place.
        record: What to do.

    Raises:
        UserError: A recorded layer is not there, or is another convolution.
    """
    for layer in record.layers:
        found = convolutions(model)
        if layer.name not in found:
            raise UserError(f"The model has no convolution {layer.name!r} to replace: {nearest(layer.name, found)}")
        conv = found[layer.name]
        own = described(conv)
        if own != layer.geometry:
            key = next(key for key in own if own[key] != layer.geometry.get(key))
            raise UserError(
                f"Convolution {layer.name!r} has {key} {own[key]} in the model and {layer.geometry.get(key)} in the "
                "file: give the network that was converted."
            )
        built = method_from_dict(layer.method).build(conv, layer.rank, bias=layer.bias)
        model = replaced(model, layer.name, built)
    setattr(model, ATTRIBUTE, record.to_dict())
    return model
