"""The picture of a receptive field: its growth with depth, and where the image really counts."""

from __future__ import annotations

import os
from importlib.util import find_spec
from itertools import accumulate, groupby
from pathlib import Path
from typing import TYPE_CHECKING

from leanconv.errors import UserError
from leanconv.receptive.effective import EffectiveField
from leanconv.receptive.field import LayerField, ReceptiveField

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TEXT, _QUIET, _GRID = "#1f2328", "#6e7781", "#e6e8eb"
_COLORS = ("#0072B2", "#D55E00", "#009E73")
_AXIS_NAMES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def save_picture(
    found: ReceptiveField, effective: EffectiveField | None, path: str | Path, *, title: str = "Receptive field"
) -> Path:
    """Write the field against depth and, where there is one, the heat map of the effective field.

    Args:
        found: From :func:`leanconv.receptive.receptive_field`.
        effective: From :func:`leanconv.receptive.effective_receptive_field`; only images have a heat map.
        path: Where to; the suffix picks the format (``.png``, ``.svg``, ``.pdf``).
        title: A line above everything.

    Raises:
        UserError: matplotlib is not installed, or the format is unknown.
    """
    if find_spec("matplotlib") is None:
        raise UserError('Pictures need the "plot" extra: pip install "leanconv[plot]"')
    path = Path(path)
    figure = draw(found, effective, title)
    kind = path.suffix.lstrip(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise UserError(f"path={str(path)!r} has no picture format as its suffix: use .png, .svg or .pdf.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format=kind, dpi=160)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def draw(found: ReceptiveField, effective: EffectiveField | None, title: str) -> Figure:
    """Return the figure that :func:`save_picture` writes."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    has_map = effective is not None and effective.heat.dim() == 2
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(11.2 if has_map else 6.6, 4.6), layout=layout, facecolor="white")
    figure.suptitle(title, x=0.012, ha="left", color=_TEXT, fontsize=12)
    axes = figure.subplots(1, 2 if has_map else 1, squeeze=False, width_ratios=(1.45, 1) if has_map else (1,))[0]
    _draw_growth(axes[0], found)
    if has_map and effective is not None:
        _draw_heat(axes[1], found, effective)
    return figure


def _draw_growth(axes: Axes, found: ReceptiveField) -> None:
    from matplotlib.ticker import MaxNLocator

    layers = [layer for layer in found.layers if layer.is_leaf]
    depths = list(range(1, len(layers) + 1))
    lengths = found.input_size[2:]
    names = _AXIS_NAMES[len(lengths)]
    sizes = [[layer.axes[axis].size for layer in layers] for axis in range(len(lengths))]
    alike = all(other == sizes[0] for other in sizes) and len(set(lengths)) == 1
    for axis in range(1 if alike else len(lengths)):
        color = _COLORS[axis]
        label = "all axes" if alike and len(lengths) > 1 else names[axis]
        # Branches begin again at a small field; what the network has seen so far is the largest yet.
        reached = list(accumulate(sizes[axis], max))
        axes.plot(depths, reached, drawstyle="steps-post", color=color, linewidth=1.6, label=f"field along {label}")
        for whole in (False, True):
            chosen = [index for index, layer in enumerate(layers) if (layer.axes[axis].jump is None) == whole]
            axes.plot(
                [depths[index] for index in chosen],
                [sizes[axis][index] for index in chosen],
                "o",
                color=color,
                markersize=4.5 if whole else 3.2,
                markerfacecolor="white" if whole else color,
                label="sees the image as a whole" if whole and chosen and axis == 0 else None,
                zorder=4,
            )
        one_length = len(set(lengths)) == 1
        axes.axhline(lengths[axis], color=_TEXT if one_length else color, linewidth=1.1, linestyle=(0, (4, 3)))
    axes.set_xlim(0.5, len(layers) + 0.5)
    top = max(max(max(s) for s in sizes), max(lengths))
    axes.set_ylim(0, 1.18 * top)
    axes.annotate(
        f"image: {max(lengths)}",
        (0, max(lengths)),
        xycoords=("axes fraction", "data"),
        xytext=(5, 3),
        textcoords="offset points",
        color=_TEXT,
        fontsize=9,
    )
    _draw_resolutions(axes, layers, len(lengths))
    axes.legend(loc="lower right", fontsize=9, labelcolor=_TEXT, framealpha=0.85, edgecolor="none")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Layer")
    axes.set_ylabel("Receptive field in samples")
    axes.grid(True, axis="y", color=_GRID, linewidth=0.8)
    _dress(axes)


def _draw_resolutions(axes: Axes, layers: list[LayerField], count: int) -> None:
    """Shade every other run of layers of one resolution, and name it where there is room."""
    resolutions: list[tuple[int, ...]] = []
    for layer in layers:
        # A layer without a resolution (attention's, the classifier's) works for the one around it.
        is_image = len(layer.output_shape) == count + 2 or not resolutions
        resolutions.append(layer.output_shape[2:] if is_image else resolutions[-1])
    first = 1
    for index, (resolution, run) in enumerate(groupby(resolutions)):
        length = len(list(run))
        if index % 2:
            axes.axvspan(first - 0.5, first + length - 0.5, color="#f3f5f7", zorder=0)
        if resolution and length >= 0.07 * len(layers):
            axes.annotate(
                "×".join(map(str, resolution)),
                (first - 0.5 + length / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, -11),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=_QUIET,
            )
        first += length


def _draw_heat(axes: Axes, found: ReceptiveField, effective: EffectiveField) -> None:
    from matplotlib.patches import Rectangle

    height, width = effective.heat.shape
    image = axes.imshow(
        effective.heat.sqrt().numpy(), cmap="magma", vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="none"
    )
    theory = next(
        (layer for layer in reversed(found.layers) if _contains(effective.layer, layer.name) and layer.is_leaf),
        None,
    )
    title = f"Effective field: {effective.size:.1f} samples a side"
    if theory is not None:
        title += f" of {min(theory.axes[0].size, height)}"
        starts, sizes = [], []
        for axis, length, outputs in zip(theory.axes, (height, width), theory.output_shape[2:], strict=True):
            start = 0.0 if axis.offset is None or axis.jump is None else axis.offset + axis.jump * (outputs // 2)
            starts.append(max(0.0, start))
            sizes.append(min(length, start + axis.size) - max(0.0, start))
        axes.add_patch(
            Rectangle(
                (starts[1], starts[0]), sizes[1], sizes[0], fill=False, edgecolor="#56B4E9", lw=1.8, clip_on=False
            )
        )
    axes.set_title(title, fontsize=10, color=_TEXT, loc="left")
    axes.set_xlabel(f"Centre of {effective.layer}; frame: theoretical field", fontsize=9)
    bar = axes.figure.colorbar(
        image,
        ax=axes,
        shrink=0.82,
        pad=0.03,
    )
    bar.ax.set_yticks([0, 0.01**0.5, 0.1**0.5, 0.5**0.5, 1], ["0", "0.01", "0.1", "0.5", "1"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_QUIET, labelsize=8)
    bar.set_label("mean gradient, of the peak", color=_TEXT, fontsize=9)
    _dress(axes)


def _contains(effective: str, layer: str) -> bool:
    """Return whether the effective field was taken at a layer, or at one for single elements behind it."""
    return layer == effective or layer.rpartition(".")[0] == effective.rpartition(".")[0]


def _dress(axes: Axes) -> None:
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_QUIET)
    axes.tick_params(which="both", colors=_QUIET, labelsize=9)
    axes.xaxis.label.set(color=_TEXT)
    axes.yaxis.label.set(color=_TEXT)
