"""A report as a table for people."""

from collections.abc import Iterator
from dataclasses import replace

from rich import box
from rich.table import Table

from leanconv.measurement.arguments import positive
from leanconv.measurement.profile import Layer
from leanconv.measurement.report import Report

MIB = 2**20


def report_table(report: Report, depth: int | None = None) -> Table:
    """Return a table of the layers and their totals; latency, memory and floor are in its caption.

    Layers without parameters, multiply-accumulates and memory traffic of their own are left out.

    Args:
        report: From :func:`leanconv.measurement.measure`.
        depth: Levels of the module tree to show; deeper modules are added to theirs at this level.  None shows all.

    Raises:
        UserError: ``depth`` is not positive.
    """
    layers = report.layers if depth is None else tuple(grouped(report.layers, positive("depth", depth)))
    sizes = " + ".join(_shape(shape) for shape in report.input_shapes)
    table = Table(
        title=f"{report.model} on {sizes} ({report.dtype}, {report.device})",
        caption="\n".join(_facts(report)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_footer=True,
    )
    table.add_column("Layer", footer="Total", overflow="fold")
    table.add_column("Type")
    table.add_column("Output")
    table.add_column("Params (M)", footer=_millions(report.params), justify="right")
    table.add_column("MACs (M)", footer=_millions(report.macs), justify="right")
    table.add_column("Moved (MiB)", footer=_mebibytes(report.bytes_moved), justify="right")
    if report.roofline is not None:
        floors = [report.roofline.floor_s(layer.macs, layer.bytes_moved) for layer in report.layers]
        table.add_column("Floor (ms)", footer=f"{1e3 * sum(floors):.3f}", justify="right")
    for layer in layers:
        if layer.params or layer.macs or layer.bytes_moved:
            table.add_row(*_cells(layer, report))
    return table


def grouped(layers: tuple[Layer, ...], depth: int) -> Iterator[Layer]:
    """Add the layers deeper than ``depth`` levels to the module they are in at that level."""
    groups: dict[str, Layer] = {}
    for layer in layers:
        name = ".".join(layer.name.split(".")[:depth])
        if name not in groups:
            # Containers are called before what they contain, unless they are mere lists.
            called = layer.name == name
            shape = layer.output_shape if called else None
            groups[name] = replace(layer, name=name, type=layer.type if called else "", output_shape=shape)
        else:
            group = groups[name]
            groups[name] = replace(
                group,
                params=group.params + layer.params,
                macs=group.macs + layer.macs,
                bytes_moved=group.bytes_moved + layer.bytes_moved,
            )
    yield from groups.values()


def _cells(layer: Layer, report: Report) -> Iterator[str]:
    yield layer.name or "(itself)"
    yield layer.type
    yield "" if layer.output_shape is None else _shape(layer.output_shape)
    yield _millions(layer.params)
    yield _millions(layer.macs)
    yield _mebibytes(layer.bytes_moved)
    if report.roofline is not None:
        yield f"{1e3 * report.roofline.floor_s(layer.macs, layer.bytes_moved):.3f}"


def _facts(report: Report) -> Iterator[str]:
    yield f"peak memory {_mebibytes(report.peak_memory)} MiB, weights {_mebibytes(report.weight_memory)} MiB of it"
    if report.latency is not None:
        timed = report.latency
        yield (
            f"latency {1e3 * timed.median_s:.3f} ms (quartiles {1e3 * timed.q25_s:.3f} to {1e3 * timed.q75_s:.3f}, "
            f"{timed.rounds} rounds, batch {timed.batch}, {timed.threads} thread{'s' if timed.threads > 1 else ''})"
        )
        yield f"achieved {report.achieved_gflops:.1f} GFLOP/s and {report.achieved_gbs:.1f} GB/s"
    if report.roofline is not None and report.floor_s is not None:
        share = "" if report.floor_share is None else f", {report.floor_share:.0%} of the latency"
        yield (
            f"at most {report.roofline.peak_gflops:.1f} GFLOP/s and {report.roofline.bandwidth_gbs:.1f} GB/s here: "
            f"floor {1e3 * report.floor_s:.3f} ms{share}"
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f}"


def _mebibytes(count: int) -> str:
    return f"{count / MIB:.2f}"
