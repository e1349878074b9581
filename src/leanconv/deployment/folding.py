"""Fold a trained network for inference: fewer layers that compute exactly the same."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.parameter import is_lazy

from leanconv.deployment.costs import Prices, Timing, prices_for
from leanconv.deployment.fold_record import FoldRecord
from leanconv.deployment.pairing import pair_up
from leanconv.deployment.rewriting import Rewriter
from leanconv.deployment.trace import Unreadable, traced
from leanconv.errors import UserError
from leanconv.measurement.inputs import example_inputs
from leanconv.ops.hooks import has_hooks

#: The target that has a kernel for depthwise pairs.
PAIRED = "torch"
#: Outputs that differ by more than this share of their size were not folded but misread.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}


def fold(
    model: nn.Module,
    *,
    input_size: Sequence[int] | None = None,
    target: str = "torch",
    timing: Timing | None = None,
) -> nn.Module:
    """Return a network for inference that computes the same with fewer layers.

    Folded are batch norms into convolutions, transposed convolutions and linear layers before or after them, residuals
    around a convolution, parallel convolutions (RepVGG), convolutions one after the other (a depthwise axial pair
    becomes one kernel), and average pooling into the convolution before it: each only where the result is exact, at
    the borders of every padding mode too, and cheaper.  Where a shift stands between two convolutions of which the
    second pads with zeros, as between the axes of a residual axial block, they become one kernel and a small map that
    is added, for what is missing of the shift at borders; that pays where the block is strided, else the pair stays,
    and ``"torch"`` has a :class:`~leanconv.ops.kernels.depthwise_pair.DepthwisePair` for it that takes half its time.

    Args:
        model: Any network in evaluation mode, of ``torch.nn`` layers or operators of this package; it is not changed.
            Modules that cannot be traced (their forward pass depends on data, or they have hooks) stay as they are, and
            only what they consist of is folded.
        input_size: Shape of the input, batch first.  With it, pooling that rounds sizes up is folded where it has
            nothing to round, the result refuses images of another size if that happened, and the result is compared to
            ``model`` on a random input.  Without it the result takes what ``model`` takes.
        target: Whose prices decide what pays: ``"torch"``, ``"onnxruntime"`` or ``"openvino"``.
        timing: Called with a module and its inputs, returns seconds; measures what pays instead.  Needs ``input_size``.

    Returns:
        A copy in evaluation mode without gradients, of plain ``torch.nn`` layers wherever something was folded, that
        ``torch.export`` and ``torch.compile`` take.  Its attribute ``fold_record`` is a
        :class:`~leanconv.deployment.fold_record.FoldRecord`.

    Raises:
        UserError: ``model`` is in training mode or has lazy layers, ``target`` is unknown, or ``input_size`` does not
            fit the network or is missing.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> print(fold(network).fold_record)
        0 + 1 -> 0: one convolution after the other
    """
    prices = prices_for(target)
    for name, module in model.named_modules():
        if module.training:
            raise UserError(
                f"`model` is in training mode ({name or 'the network'!r}), where batch norms depend on the batch: "
                "fold(model.eval()) would work."
            )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise UserError(f"`model` has a lazy parameter {name!r}: run the network once before it is folded.")
    if timing is not None and input_size is None:
        raise UserError("`timing` needs `input_size` to know what to measure on, such as (1, 3, 32, 32).")
    example = None if input_size is None else example_inputs(model, input_size)[0]
    expected = None if example is None else _output(model, example)
    size = None if input_size is None else tuple(input_size)
    record = FoldRecord(target, input_size=size, measured=timing is not None)
    folder = _Folder(prices, timing, record)
    folded = folder.whole(copy.deepcopy(model), example)
    if example is not None and not _agree(expected, _output(folded, example)):
        kept = {"": "traced as a whole it would compute something else"}
        record = FoldRecord(target, kept=kept, input_size=size, measured=timing is not None)
        folder = _Folder(prices, timing, record)
        folded = folder.parts(copy.deepcopy(model))
        if not _agree(expected, _output(folded, example)):
            folded = copy.deepcopy(model)
            record.folds.clear()
    folded.eval().requires_grad_(False)
    folded.fold_record = record  # type: ignore[assignment]
    # Not as its ``config``, which builds a network that is not folded.
    folded.folded_from = getattr(model, "config", None)  # type: ignore[assignment]
    return folded


class _Folder:
    """Folds a network, or what it consists of."""

    def __init__(self, prices: Prices, timing: Timing | None, record: FoldRecord) -> None:
        self.prices, self.timing, self.record = prices, timing, record
        self.done: dict[nn.Module, nn.Module] = {}

    def whole(self, model: nn.Module, example: Tensor | None = None, path: str = "") -> nn.Module:
        """Fold a network as one graph where it can be read as one, else its parts.

        Args:
            model: A copy, to be taken to pieces.
            example: An input; with one, shapes are known.
            path: Name of the network in the one it is part of.
        """
        if has_hooks(model):
            self.record.kept[path] = "it has hooks"
            return self.parts(model, path)
        try:
            network, opaque = traced(model)
        except Unreadable as unreadable:
            self.record.kept[path] = f"it is folded part by part: {unreadable}"
            return self.parts(model, path)
        if example is not None:
            _propagate(network, example)
        before = len(self.record.folds)
        rewriter = Rewriter(network, self.prices, None if example is None else self.timing, self.record)
        rewriter.run(path)
        if self.record.target == PAIRED:
            pair_up(network, self.prices, self.record, path)
        for name, reason in opaque.items():
            self.record.kept[f"{path}.{name}".lstrip(".")] = reason
            if any(node.target == name for node in network.graph.nodes):
                self.parts(network.get_submodule(name), f"{path}.{name}".lstrip("."))
        if path and len(self.record.folds) == before:
            return model
        if rewriter.sized and example is not None:
            _expect(network, tuple(example.shape[1:]))
        for name, value in vars(model).items():
            if not name.startswith("_") and name != "config" and not hasattr(network, name):
                setattr(network, name, value)
        return network

    def parts(self, model: nn.Module, path: str = "") -> nn.Module:
        """Fold the modules that a network consists of, in place."""
        for name, child in list(model.named_children()):
            inner = f"{path}.{name}".lstrip(".")
            if child not in self.done:
                layer = type(child).__module__.startswith("torch.nn.")
                holder = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
                # Items of a sequence may be called one by one, so they are not taken to follow each other.
                part = self.parts(child, inner) if layer or holder else self.whole(child, path=inner)
                self.done[child] = self.done[part] = part
            setattr(model, name, self.done[child])
        return model


@torch.no_grad()
def _propagate(network: fx.GraphModule, example: Tensor) -> None:
    """Note the shape of every tensor in the graph."""
    ShapeProp(network).propagate(example)
    for node in network.graph.nodes:
        shape = getattr(node.meta.get("tensor_meta"), "shape", None)
        node.meta = {} if shape is None else {"shape": tuple(shape)}


def expect_size(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return ``x`` if its shape without the batch is ``size``.

    Raises:
        UserError: It is not.
    """
    if tuple(x.shape[1:]) != size:
        raise UserError(
            f"`x` must have shape (N, {', '.join(map(str, size))}), for which the network was folded, got "
            f"{tuple(x.shape)}; fold without `input_size` for any size."
        )
    return x


def _expect(network: fx.GraphModule, size: tuple[int, ...]) -> None:
    """Let the network refuse inputs of another size."""
    entry = next(node for node in network.graph.nodes if node.op == "placeholder")
    with network.graph.inserting_after(entry):
        check = network.graph.call_function(expect_size, (entry, size))
    entry.replace_all_uses_with(check, delete_user_cb=lambda user: user is not check)
    network.recompile()


@torch.no_grad()
def _output(model: nn.Module, example: Tensor) -> list[Tensor]:
    try:
        found: Any = model(example)
    except (RuntimeError, TypeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"`input_size` {tuple(example.shape)} does not fit the network: {reason}") from error
    return [leaf for leaf in torch.utils._pytree.tree_leaves(found) if isinstance(leaf, Tensor)]


def _agree(expected: list[Tensor] | None, found: list[Tensor]) -> bool:
    assert expected is not None
    if [x.shape for x in expected] != [x.shape for x in found]:
        return False
    for x, y in zip(expected, found, strict=True):
        scale = max(float(x.abs().max()) if x.numel() else 0.0, torch.finfo(torch.float32).tiny)
        if not float((x - y).abs().max() if x.numel() else 0.0) <= TOLERANCE.get(x.dtype, 0.05) * scale:
            return False
    return True
