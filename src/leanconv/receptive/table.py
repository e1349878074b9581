"""Receptive fields as tables for people."""

from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.table import Table

from leanconv.receptive.field import AxisField, LayerField, ReceptiveField, StageField
from leanconv.receptive.optimizer import Optimized


def field_table(found: ReceptiveField, depth: int | None = None) -> Table:
    """Return a table of what the layers see of the image.

    Args:
        found: From :func:`leanconv.receptive.receptive_field`.
        depth: Levels of the module tree to show; None shows every layer that contains no other.
    """
    size = _lengths(found.input_size)
    table = Table(
        title=f"What a central output sees of an image of {size}",
        caption=_caption(found),
        caption_justify="left",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("Layer", overflow="fold")
    table.add_column("Type")
    table.add_column("Output")
    for heading in ("Field", "Seen", "Jump", "Offset", "Channels"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in shown_layers(found.layers, depth):
        table.add_row(*_cells(layer))
    return table


def stage_table(found: ReceptiveField) -> Table:
    """Return a table of what the stages see of the tensors that enter them."""
    table = Table(
        title="What a stage's central neurons see of the stage's input, over space and channels",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("Resolution")
    table.add_column("Input")
    table.add_column("Layers", justify="right")
    table.add_column("Portion", justify="right")
    table.add_column("Saturated by", overflow="fold")
    table.add_column("Gain nothing", justify="right")
    for stage in found.stages:
        table.add_row(
            _lengths(stage.resolution),
            _lengths(stage.input_shape[1:]),
            str(len(stage.kernels)),
            f"{stage.portion:.3g}",
            stage.saturated_by or "–",
            str(idle_layers(stage)),
        )
    return table


def optimized_table(found: Optimized) -> Table:
    """Return a table of the units a stage before and after, with the costs in its caption."""
    table = Table(
        title=f"{found.name} on {_lengths(found.input_size)}: units a stage, and how much of it a neuron then sees",
        caption="\n".join(_savings(found)),
        caption_justify="left",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("Resolution")
    for heading in ("Units", "After", "Saturated by", "Portion", "After"):
        table.add_column(heading, justify="right")
    for stage in found.stages:
        table.add_row(
            _lengths(stage.resolution),
            str(stage.before),
            str(stage.after),
            str(stage.saturated_by),
            f"{stage.portion(stage.before):.3f}",
            f"{stage.portion(stage.after):.3f}",
        )
    return table


def _savings(found: Optimized) -> Iterator[str]:
    before, after = found.before, found.after
    yield _saving("Parameters", before.params, after.params, "{:,.0f}")
    yield _saving("Multiply-accumulates", before.macs, after.macs, "{:,.0f}")
    if before.latency_s is not None and after.latency_s is not None:
        yield _saving("Milliseconds here", 1e3 * before.latency_s, 1e3 * after.latency_s, "{:.2f}")
    if found.replacements:
        yield f"Convolutions replaced: {len(found.replacements)}, kept: {len(found.kept)}."
    if found.copied:
        yield f"Tensors taken over: {found.copied}."


def _saving(what: str, before: float, after: float, style: str) -> str:
    change = f"{100 * (after / before - 1):+.1f} %"
    return f"{what}: {style.format(before)} → {style.format(after)} ({change})"


def shown_layers(layers: Sequence[LayerField], depth: int | None) -> list[LayerField]:
    """Return the layers at a level of the module tree, and those above it that contain none there."""
    if depth is None:
        return [layer for layer in layers if layer.is_leaf]
    near = [layer for layer in layers if layer.name.count(".") < depth]
    return [layer for layer in near if not any(other.name.startswith(f"{layer.name}.") for other in near)]


def idle_layers(stage: StageField) -> int:
    """Return how many layers of a stage come after it is saturated."""
    names = [kernel.name for kernel in stage.kernels]
    return 0 if stage.saturated_by is None else len(names) - names.index(stage.saturated_by) - 1


def _cells(layer: LayerField) -> Iterator[str]:
    yield layer.name
    yield layer.type
    yield _lengths(layer.output_shape[1:])
    yield _each(layer.axes, lambda axis: str(axis.size))
    yield _each(layer.axes, lambda axis: str(axis.seen))
    yield _each(layer.axes, lambda axis: "–" if axis.jump is None else f"{axis.jump:g}")
    yield _each(layer.axes, lambda axis: "–" if axis.offset is None else f"{axis.offset:g}")
    yield f"{100 * layer.channels:.3g} %"


def _each(axes: Sequence[AxisField], text: Callable[[AxisField], str]) -> str:
    """Return one text for all axes where they agree, else one each."""
    texts = [text(axis) for axis in axes]
    return texts[0] if len(set(texts)) == 1 else "×".join(texts)


def _lengths(lengths: Sequence[int]) -> str:
    return "×".join(str(length) for length in lengths)


def _caption(found: ReceptiveField) -> str:
    facts = ["Field: samples spanned, borders aside.  Seen: those of the image that reach the central output."]
    if found.unknown:
        facts.append(f"Taken to see everything, their reach being unknown: {', '.join(found.unknown)}.")
    return "\n".join(facts)
