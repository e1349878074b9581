"""Rewrite a graph: neighbours that are linear become one convolution where that is exact and pays."""

import math
import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from leanconv.deployment.border import border_shift
from leanconv.deployment.costs import Part, Prices, Sum, Timing, total
from leanconv.deployment.fold_record import Fold, FoldRecord
from leanconv.deployment.reading import Linear, Reader
from leanconv.deployment.realise import realised
from leanconv.ops.affine import Affine, Unfoldable
from leanconv.ops.axial import every

_ADDITIONS = (operator.add, torch.add)


class Rewriter:
    """Folds one graph in place.

    Args:
        network: The graph.
        prices: Of the target.
        timing: Measures instead, where given.
        record: To be filled.

    Attributes:
        sized: Whether a fold holds for the traced size of inputs only.
    """

    def __init__(self, network: fx.GraphModule, prices: Prices, timing: Timing | None, record: FoldRecord) -> None:
        self.network, self.prices, self.timing, self.record = network, prices, timing, record
        self.graph = network.graph
        self.reader = Reader(network)
        self.sized = False
        self.folds: list[Fold] = []
        self.kept: dict[str, str] = {}

    def run(self, path: str = "") -> None:
        """Fold until nothing more pays; what needs a correction at borders comes last.

        Args:
            path: Of the graph in the network it is part of, to name layers by.
        """
        for borders in (False, True):
            while sum(self._visit(node, borders) for node in list(self.graph.nodes)):
                pass
        self._install(path)

    def _visit(self, node: fx.Node, borders: bool) -> bool:
        if node._erased:
            return False
        if node.op in ("call_function", "call_method") and (node.target in _ADDITIONS or node.target == "add"):
            a, b = (*node.args, None, None)[:2]
            if len(node.args) == 2 and not node.kwargs and isinstance(a, fx.Node) and isinstance(b, fx.Node):
                return self._add(node, a, b)
            return False
        first = node.args[0] if node.args else None
        return isinstance(first, fx.Node) and self._compose(first, node, borders)

    def _compose(self, first: fx.Node, second: fx.Node, borders: bool) -> bool:
        pair = self.reader.chain(first, second)
        if pair is None:
            return self._scale_transposed(first, second)
        a, b = pair
        names = layers(second)
        if len(first.users) > 1:
            return self._keep(names, f"{layers(first)[-1]!r}, which it follows, is also read by others")
        border = a.map.shift_ends_at_border(b.map)
        if border and not borders:
            return False
        try:
            self._check_types(a.map, b.map)
            layout = a.map.layout.then(b.map.layout)
        except Unfoldable as reason:
            return self._keep(names, f"with {layers(first)[-1]!r}: {reason}")
        area = 1 / math.prod(a.map.layout.stride)
        before = [self._part(a, 1.0), self._part(b, area)]
        if self.timing is None and not border and self.prices.conv(layout, 1.0) >= 4 * total(before, None):
            return self._keep(names, f"as one with {layers(first)[-1]!r} it would cost more")
        merged = a.map.then(b.map)
        shift = border_shift(a.map, b.map) if border else None
        merged = merged.without_bias() if border else merged
        after = [self._merged_part(merged, a.source)]
        if shift is not None:
            size = merged.layout.out_channels / math.prod(merged.layout.stride)
            after.append(Part(lambda: shift, self.prices.border * size, (second.meta.get("shape"), _shape(a.source))))
        why = self._reason(first, second)
        if shift is not None:
            why += ", with a map of the shift that zero padding ends"
        if not self._pays(names, before, after):
            return False
        self.sized |= self.reader.needs_size(first) or self.reader.needs_size(second)
        self._put(merged, a.source, second, [first, second], why, before, after, shift)
        return True

    def _reason(self, first: fx.Node, second: fx.Node) -> str:
        if self.reader.is_norm(second):
            return "batch norm into the convolution before it"
        if self.reader.is_norm(first):
            return "batch norm into the convolution after it"
        if self.reader.is_pool(second):
            return "average pooling into the convolution before it"
        return "one convolution after the other"

    def _add(self, node: fx.Node, a: fx.Node, b: fx.Node) -> bool:
        found = self.reader.branches(a, b)
        if found is None or a is b:
            return False
        branches, source = found
        if any(len(branch.node.users) > 1 for branch in branches):
            return self._keep([node.name], "a branch is also read by others")
        first = branches[0].map
        other = branches[1].map if len(branches) > 1 else Affine.identity(first, first.layout.in_channels)
        try:
            self._check_types(first, other)
            merged = first.plus(other)
        except Unfoldable as reason:
            return self._keep([node.name], str(reason))
        size = first.layout.out_channels / math.prod(first.layout.stride)
        shapes = tuple(_shape(branch) for branch in (a, b))
        addition = Part(Sum, self.prices.passes(2 * size, size), shapes)
        before = [*(self._part(branch, 1.0) for branch in branches), addition]
        after = [self._merged_part(merged, source)]
        if not self._pays([node.name], before, after):
            return False
        parallel = len(branches) > 1
        why = "parallel branches as one" if parallel else "a residual as ones in the kernel"
        self._put(merged, source, node, [*(branch.node for branch in branches), node], why, before, after, None)
        return True

    def _scale_transposed(self, first: fx.Node, second: fx.Node) -> bool:
        """Fold a batch norm into a transposed convolution."""
        conv = self.reader.transposed(first)
        if conv is None or len(first.users) > 1:
            return False
        norm: Any = self.reader.norm(second, len(conv.kernel_size))
        if norm is None:
            return False
        new = _scaled(conv, Affine.of_norm(norm, len(conv.kernel_size)))
        names = [*layers(first), *layers(second)]
        node = self._new_node(first.args[0], second, names)
        node.meta["module"] = new
        second.replace_all_uses_with(node)
        self._erase([second, first])
        node.target = self._free_name(names)
        self.folds.append(Fold(tuple(names), node.target, "a batch norm into a transposed convolution", 2, 1))
        return True

    def _check_types(self, a: Affine, b: Affine) -> None:
        if a.dtype != b.dtype or a.weight.device != b.weight.device:
            raise Unfoldable("they compute in different types or on different devices")

    def _part(self, linear: Linear, area: float) -> Part:
        layout = linear.map.layout
        read, written = area * layout.in_channels, area * layout.out_channels / math.prod(layout.stride)
        if linear.node.target is every:
            return Part(nn.Identity, 0.0, (_shape(linear.source),))
        moves = linear.map.is_scale or self.reader.is_pool(linear.node)
        price = self.prices.passes(read, written) if moves else self.prices.conv(layout, area)
        return Part(partial(self._module, linear.node), price, (_shape(linear.source),))

    def _merged_part(self, merged: Affine, source: fx.Node) -> Part:
        layout = merged.layout
        size = layout.in_channels
        price = self.prices.passes(size, size) if merged.is_scale else self.prices.conv(layout, 1.0)
        return Part(partial(realised, merged), price, (_shape(source),))

    def _module(self, node: fx.Node) -> nn.Module:
        if "affine" in node.meta:
            return realised(node.meta["affine"])
        return self.network.get_submodule(str(node.target))

    def _pays(self, names: Sequence[str], before: Sequence[Part], after: Sequence[Part]) -> bool:
        old, new = total(before, self.timing), total(after, self.timing)
        if new < old:
            return True
        return self._keep(names, f"folded further it would cost {new / max(old, 1e-12):.2f} times as much")

    def _keep(self, names: Sequence[str], why: str) -> bool:
        self.kept[names[-1]] = why
        return False

    def _put(
        self,
        merged: Affine,
        source: fx.Node,
        at: fx.Node,
        old: Sequence[fx.Node],
        why: str,
        before: Sequence[Part],
        after: Sequence[Part],
        shift: nn.Module | None,
    ) -> None:
        names = [name for node in old for name in layers(node) if node.op == "call_module"]
        for name in [*names, *(node.name for node in old)]:
            self.kept.pop(name, None)
        node = self._new_node(source, at, names)
        node.meta["affine"] = merged
        result = node
        if shift is not None:
            with self.graph.inserting_before(at):
                result = self.graph.create_node("call_module", "", (node, source), name="border")
            result.meta.update(module=shift, layers=names, shape=at.meta.get("shape"))
        costs = total(before, self.timing), total(after, self.timing)
        at.replace_all_uses_with(result)
        self._erase([at, *reversed(old)])
        node.target = self._free_name(names)
        if shift is not None:
            result.target = self._free_name([f"{node.target}_border"])
        self.folds.append(Fold(tuple(names), str(node.target), why, *costs))

    def _new_node(self, source: Any, at: fx.Node, names: Sequence[str]) -> fx.Node:
        with self.graph.inserting_before(at):
            node = self.graph.create_node("call_module", "", (source,), name="folded")
        node.meta.update(layers=list(names), shape=at.meta.get("shape"))
        return node

    def _erase(self, nodes: Sequence[fx.Node]) -> None:
        for node in nodes:
            if not node._erased and not node.users:
                self.graph.erase_node(node)

    def _free_name(self, names: Sequence[str]) -> str:
        """Return the first of some names that no call needs any more."""
        taken = {str(node.target) for node in self.graph.nodes if node.op in ("call_module", "get_attr")}

        def free(name: str) -> bool:
            return all(
                name != other and not name.startswith(f"{other}.") and not other.startswith(f"{name}.")
                for other in taken
                if other
            )

        paths = [name for name in names if name in self.reader.paths] or list(names)
        for name in paths:
            if free(name):
                return name
        base, number = paths[0].replace(".", "_"), 2
        while not free(f"{base}_{number}"):
            number += 1
        return f"{base}_{number}"

    def _install(self, path: str) -> None:
        """Give the new calls their modules, and drop what is called no more."""
        for node in self.graph.nodes:
            if self.reader.is_norm(node):
                self.kept.setdefault(
                    str(node.target), f"{layers(node.args[0])[-1]!r}, which it follows, is no convolution"
                )
        present = {name for node in self.graph.nodes for name in (*layers(node), node.name)}
        prefix = f"{path}." if path else ""
        self.record.kept |= {prefix + name: why for name, why in self.kept.items() if name in present}
        self.record.folds += [
            replace(fold, layers=tuple(prefix + name for name in fold.layers), became=prefix + fold.became)
            for fold in self.folds
        ]
        for node in self.graph.nodes:
            if "affine" in node.meta:
                node.meta["module"] = realised(node.meta["affine"])
            if "module" in node.meta:
                self.network.add_submodule(str(node.target), node.meta["module"])
            node.meta.clear()
        self.network.delete_all_unused_submodules()
        self.graph.lint()
        self.network.recompile()


def layers(node: fx.Node) -> list[str]:
    """Return the names of the layers that a call stands for."""
    if "layers" in node.meta:
        names: list[str] = node.meta["layers"]
        return names
    return [str(node.target) if node.op == "call_module" else node.name]


@torch.no_grad()
def _scaled(conv: Any, norm: Affine) -> nn.Module:
    """Return a transposed convolution and the batch norm after it as one; weights are ``(in, out / groups, …)``."""
    new: Any = type(conv)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.output_padding,
        conv.groups,
        True,
        conv.dilation,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    scale = norm.weight.flatten()
    rows = scale.view(conv.groups, 1, -1, *[1] * len(conv.kernel_size))
    new.weight.copy_((conv.weight.double().unflatten(0, (conv.groups, -1)) * rows).flatten(0, 1))
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.double() * scale
    new.bias.copy_(bias if norm.bias is None else bias + norm.bias)
    module: nn.Module = new.eval()
    return module


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    shape: tuple[int, ...] | None = node.meta.get("shape")
    return shape
