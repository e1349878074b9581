"""The receptive field of every layer and stage of a network, over space and channels.

Wang, Feng, Peng and Ding, 2021, arXiv 2009.05236 ("3D receptive field"): how much of a stage's input tensor can reach
one neuron, in space and in channels, and what each further kernel adds to it.  The paper's formula multiplies the
shares along the axes; here each share is counted on the traced network, so that branches, dilation, shuffles and
rolling windows are exact along each axis.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, fx, nn

from leanconv.errors import UserError
from leanconv.receptive.layers import LayerCall, layer_calls
from leanconv.receptive.propagation import propagate
from leanconv.receptive.relation import ORIGIN, Relation, View
from leanconv.receptive.stages import StageNodes, stages_of
from leanconv.receptive.tracing import Trace, shape_of, trace


@dataclass(frozen=True)
class AxisField:
    """The window of a layer's outputs along one spatial axis.

    Output ``p`` sees samples ``offset + jump p`` to ``offset + jump p + size - 1``; some of them may lie outside the
    image, and those between the taps of a dilated kernel are not seen.

    Attributes:
        size: Samples from the first to the last that the window spans, or that are seen where there is no window.
        jump: Samples from one output's window to the next one's; None where the layer has no moving window, such as
            behind global pooling.
        offset: First sample of the first output's window, negative in the padding; None with ``jump``.
        seen: Samples of the image that reach the central output, which is the exact number.
    """

    size: int
    jump: float | None
    offset: float | None
    seen: int


@dataclass(frozen=True)
class LayerField:
    """What the outputs of a layer see of the image.

    Attributes:
        name: Path of the module in the network.
        type: Its class.
        is_leaf: Whether the layer contains no other listed layer.
        output_shape: Batch included.
        axes: The window along each spatial axis of the image.
        channels: Share of the image's channels that reach an output channel, averaged over output channels.
    """

    name: str
    type: str
    is_leaf: bool
    output_shape: tuple[int, ...]
    axes: tuple[AxisField, ...]
    channels: float


@dataclass(frozen=True)
class KernelField:
    """What a stage's neurons see of the stage's input after one more layer.

    Attributes:
        name: Path of the layer.
        portion: Share of the input tensor that reaches the central outputs, averaged over channels: the product of
            the exact shares along the axes and of the channels.
        gain: What the layer adds to the largest portion before it.
    """

    name: str
    portion: float
    gain: float


@dataclass(frozen=True)
class StageField:
    """What the neurons of a stage see of the tensor that enters it.

    Attributes:
        resolution: Spatial lengths of the stage's tensors.
        input_shape: Shape of the tensor that enters, batch included; it is of a higher resolution where the stage
            begins with a stride.
        kernels: Its layers that combine elements, in order.
        saturated_by: Name of the layer from which on every neuron in the middle sees all of the input, so that further
            layers gain nothing; None if that is never so.
    """

    resolution: tuple[int, ...]
    input_shape: tuple[int, ...]
    kernels: tuple[KernelField, ...]
    saturated_by: str | None

    @property
    def portion(self) -> float:
        """The largest portion any of its layers has."""
        return max((kernel.portion for kernel in self.kernels), default=0.0)


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of a network.

    Attributes:
        input_size: Batch, channels and spatial lengths.
        layers: Every layer that combines elements, and every module that contains one, in the order they end.
        stages: Its resolutions.
        unknown: Operators of unknown reach, which are taken to see everything.
    """

    input_size: tuple[int, ...]
    layers: tuple[LayerField, ...]
    stages: tuple[StageField, ...]
    unknown: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        record: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return record

    def to_json(self) -> str:
        """Return the fields as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)


def receptive_field(model: nn.Module, input_size: Sequence[int] | None = None) -> ReceptiveField:
    """Find what every layer and stage of a network sees, without computing anything with it.

    Args:
        model: Any network of one image batch that ``torch.export`` can trace, with one to three spatial axes; it is
            read in evaluation mode.
        input_size: Batch, channels and spatial lengths; by default one image of ``model.input_size``.

    Raises:
        UserError: ``torch.export`` refuses the network (the message names the line), its shapes depend on the image's
            content, or the images are smaller than its stride.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, padding=2, dilation=2))
        >>> field = receptive_field(net, (1, 3, 32, 32)).layers[-1].axes[0]
        >>> field.size, field.jump, field.offset, field.seen
        (7, 2.0, -3.0, 7)
    """
    traced = trace(model, input_size)
    calls = layer_calls(traced)
    unknown: set[str] = set()
    seen = see_source(traced, traced.source, traced.nodes, {call.node for call in calls}, unknown)
    windows = _windows(traced, {call.node for call in calls})
    layers = tuple(_layer(call, seen[call.node], windows[call.node]) for call in calls if call.node in seen)
    _check_stride(shape_of(traced.source), layers)
    stages = []
    for stage in stages_of(traced):
        found = _stage(traced, stage, [call for call in calls if call.is_leaf and call.combines])
        if found is not None:
            stages.append(found)
    return ReceptiveField(shape_of(traced.source), layers, tuple(stages), tuple(sorted(unknown)))


@dataclass
class Sight:
    """What one node sees of a source, a row a channel or one row for all.

    Attributes:
        samples: For each axis ``(channels, samples)``, boolean, of the central output.
        channels: ``(channels, source channels)``, boolean.
    """

    samples: list[Tensor]
    channels: Tensor

    def portion(self) -> float:
        """Return the share of the source that reaches a channel, averaged over channels."""
        share = self.channels.double().mean(1)
        for samples in self.samples:
            share = share * samples.double().mean(1)
        return float(share.mean())


def see_source(
    traced: Trace, source: fx.Node, nodes: Sequence[fx.Node], wanted: Collection[fx.Node], unknown: set[str]
) -> dict[fx.Node, Sight]:
    """Return what the wanted nodes see of a source."""
    samples: dict[fx.Node, list[Tensor]] = {}
    channels: dict[fx.Node, Tensor] = {}

    def observe(node: fx.Node, relation: Relation) -> None:
        if node not in wanted:
            return
        central = _central(relation, traced.axes)
        if relation.view.axis is None:
            channels[node] = central
        else:
            samples.setdefault(node, []).append(central)

    for view in (*(View(axis) for axis in range(traced.axes)), View()):
        propagate(source, nodes, traced.constants, view, observe, unknown)
    return {node: Sight(samples[node], channels[node]) for node in channels}


def _central(relation: Relation, axes: int) -> Tensor:
    """Return ``(channels or 1, probes)``: what the central output, or of the channels any, depends on."""
    values = relation.values
    is_image = len(relation.shape) == axes + 2
    for dim in reversed(range(len(relation.shape))):
        is_space = (dim >= 2 and is_image) or relation.labels[dim] is not None
        if not is_space:
            continue
        if relation.view.axis is None:
            values = values.amax(1 + dim)
        else:
            middle = 0 if relation.is_uniform(dim) else relation.shape[dim] // 2
            values = values.select(1 + dim, middle)
    return values.reshape(len(values), -1).mT > 0


def _windows(traced: Trace, wanted: Collection[fx.Node]) -> dict[fx.Node, list[tuple[float, float, float] | None]]:
    """Return first and last sample of the first output's window, and the step, along each axis."""
    windows: dict[fx.Node, list[tuple[float, float, float] | None]] = {}

    def observe(node: fx.Node, relation: Relation) -> None:
        if node not in wanted:
            return
        furthest = relation.values.reshape(len(relation.values), -1).amax(1).tolist()
        windows[node] = [
            (ORIGIN - furthest[2 * axis], furthest[2 * axis + 1] - ORIGIN, relation.steps[axis])
            if axis in relation.labels and math.isfinite(furthest[2 * axis] + furthest[2 * axis + 1])
            else None
            for axis in range(traced.axes)
        ]

    propagate(traced.source, traced.nodes, traced.constants, View(extents=True), observe)
    return windows


def _layer(call: LayerCall, sight: Sight, windows: Sequence[tuple[float, float, float] | None]) -> LayerField:
    axes = []
    for samples, window in zip(sight.samples, windows, strict=True):
        seen = samples.any(0).nonzero().flatten()
        spanned = int(seen[-1] - seen[0]) + 1 if len(seen) else 0
        if window is None:
            axes.append(AxisField(spanned, None, None, len(seen)))
        else:
            first, last, step = window
            axes.append(AxisField(round(last - first) + 1, step, first, len(seen)))
    share = float(sight.channels.double().mean())
    return LayerField(call.name, call.kind, call.is_leaf, shape_of(call.node), tuple(axes), share)


def _check_stride(input_size: tuple[int, ...], layers: Sequence[LayerField]) -> None:
    for layer in layers:
        jumps = [axis.jump for axis in layer.axes]
        if any(jump is not None and jump > length for jump, length in zip(jumps, input_size[2:], strict=True)):
            least = max(int(jump) for jump in jumps if jump is not None)
            raise UserError(
                f"`input_size` {input_size} is smaller than the stride {least} of layer {layer.name!r}; "
                f"images of at least {least} samples a side would work."
            )


def _stage(traced: Trace, stage: StageNodes, calls: Sequence[LayerCall]) -> StageField | None:
    """Return what the layers of a stage see of its input, or None for a stage that consists of single samples."""
    inside = set(stage.nodes)
    wanted: Mapping[fx.Node, str] = {
        call.node: call.name for call in calls if call.node in inside and len(shape_of(call.node)) == traced.axes + 2
    }
    source_shape = shape_of(stage.source)
    if not wanted or math.prod(stage.resolution) == 1:
        return None
    positions = {node: index for index, node in enumerate(traced.nodes)}
    first = positions.get(stage.source, -1) + 1
    last = max(positions[node] for node in wanted) + 1
    seen = see_source(traced, stage.source, traced.nodes[first:last], wanted, set())
    kernels, best, saturated_by = [], 0.0, None
    for node, name in wanted.items():
        portion = seen[node].portion()
        kernels.append(KernelField(name, portion, max(0.0, portion - best)))
        best = max(best, portion)
        if best == 1.0 and saturated_by is None:
            saturated_by = name
    return StageField(stage.resolution, source_shape, tuple(kernels), saturated_by)
