"""What the outputs of a network depend on, sample by sample and channel by channel."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from leanconv.receptive.propagation import propagate
from leanconv.receptive.relation import Relation, View
from leanconv.receptive.tracing import Trace, shape_of, trace


@dataclass(frozen=True)
class Reach:
    """What one output tensor depends on.

    Attributes:
        samples: For each spatial axis a boolean tensor ``(channels, positions, samples)``: whether some element of a
            channel at a position along that axis depends on any channel of the image at a sample along it.  An output
            without that axis has one position.
        channels: ``(channels, image channels)``: whether a channel depends on a channel of the image anywhere.
    """

    samples: tuple[Tensor, ...]
    channels: Tensor

    def equals(self, other: "Reach") -> bool:
        """Return whether both say the same."""
        pairs = zip((*self.samples, self.channels), (*other.samples, other.channels), strict=True)
        return all(torch.equal(mine, others) for mine, others in pairs)


def reach(model: nn.Module, input_size: Sequence[int] | None = None) -> tuple[Reach, ...]:
    """Return what each output of a network depends on, from its operators alone: nothing is computed.

    Args:
        model: Any network that ``torch.export`` can trace; it is read in evaluation mode.
        input_size: Batch, channels and spatial lengths; by default one image of ``model.input_size``.

    Raises:
        UserError: As :func:`~leanconv.receptive.receptive_field` does.
    """
    traced = trace(model, input_size)
    samples = [_reached(traced, View(axis)) for axis in range(traced.axes)]
    channels = _reached(traced, View())
    return tuple(
        Reach(
            tuple(
                output_positions(relations[node].values.movedim(0, -1).expand(*shape_of(node), -1) > 0, axis)
                for axis, relations in enumerate(samples)
            ),
            output_positions(channels[node].values.movedim(0, -1).expand(*shape_of(node), -1) > 0, None).squeeze(1),
        )
        for node in traced.outputs
    )


def _reached(traced: Trace, view: View) -> dict[fx.Node, Relation]:
    wanted, found = set(traced.outputs), {}

    def observe(node: fx.Node, relation: Relation) -> None:
        if node in wanted:
            found[node] = relation

    propagate(traced.source, traced.nodes, traced.constants, view, observe)
    return found


def output_positions(depends: Tensor, axis: int | None) -> Tensor:
    """Return ``(channels, positions along one axis, probes)`` from dependence of every element on every probe.

    Args:
        depends: ``(N, channels, *spatial, probes)``, boolean.
        axis: The spatial axis to keep, or None for none.
    """
    space = range(2, depends.dim() - 1)
    kept = () if axis is None or not space else (2 + axis,)
    summed = [0, *(dim for dim in space if dim not in kept)]
    depends = depends.any(0, keepdim=True) if summed else depends
    for dim in summed:
        depends = depends.any(dim, keepdim=True)
    return depends.reshape(depends.shape[1], -1, depends.shape[-1])
