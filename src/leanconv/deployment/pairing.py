"""Depthwise pairs that folding has left are computed at once, where PyTorch itself runs the network."""

import torch
import torch.nn.functional as F
from torch import fx, nn

from leanconv.deployment.costs import Prices
from leanconv.deployment.fold_record import Fold, FoldRecord
from leanconv.ops.affine import Affine
from leanconv.ops.hooks import has_hooks
from leanconv.ops.kernels.depthwise_pair import DepthwisePair, pairable

#: What a pair takes of the time of both convolutions: 0.13 to 0.5 (3 and 7 taps, 1x64x56x56 to 16x960x4x4).
SHARE = 0.5
_BOUNDS = {nn.ReLU: float("inf"), nn.ReLU6: 6.0}
_FUNCTIONS = {F.relu: float("inf"), torch.relu: float("inf"), F.relu6: 6.0}


def pair_up(network: fx.GraphModule, prices: Prices, record: FoldRecord, path: str = "") -> None:
    """Put one module in the place of a convolution along the height, one along the width, and the ReLU after them.

    Args:
        network: The graph, changed in place.
        prices: Of the target.
        record: To be added to.
        path: Of the graph in the network it is part of, to name layers by.
    """
    prefix = f"{path}." if path else ""
    calls = _calls(network)
    for second in list(network.graph.nodes):
        first = second.args[0] if second.args else None
        if not (isinstance(first, fx.Node) and _once(first, calls) and _once(second, calls) and len(first.users) == 1):
            continue
        high, wide = (network.get_submodule(str(node.target)) for node in (first, second))
        if not pairable(high, wide) or has_hooks(high) or has_hooks(wide):
            continue
        assert isinstance(high, nn.Conv2d)
        assert isinstance(wide, nn.Conv2d)
        last, upper = _activation(network, second)
        names = [str(node.target) for node in (first, second, last) if node.op == "call_module"]
        pair = DepthwisePair(high, wide, upper).eval()
        with network.graph.inserting_before(first):
            node = network.graph.call_module(names[0], first.args)
        last.replace_all_uses_with(node)
        for old in dict.fromkeys((last, second, first)):
            network.graph.erase_node(old)
        network.add_submodule(names[0], pair)
        before = sum(prices.conv(Affine.of_conv(conv).layout, 1.0) for conv in (high, wide))
        layers = tuple(dict.fromkeys(prefix + name for name in names))
        why = "both axes in one pass over memory"
        record.folds.append(Fold(layers, prefix + names[0], why, before, SHARE * before))
    network.delete_all_unused_submodules()
    network.graph.lint()
    network.recompile()


def _calls(network: fx.GraphModule) -> dict[str, int]:
    """Return how often each module is called."""
    counts: dict[str, int] = {}
    for node in network.graph.nodes:
        if node.op == "call_module":
            counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return counts


def _once(node: fx.Node, calls: dict[str, int]) -> bool:
    """Whether a node is the only call of a module, with one argument."""
    return node.op == "call_module" and len(node.args) == 1 and not node.kwargs and calls.get(str(node.target), 0) == 1


def _activation(network: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, float]:
    """Return the ReLU that alone reads a node, and its upper bound; else the node itself and 0."""
    reader = next(iter(node.users), None)
    if reader is None or len(node.users) > 1 or len(reader.args) != 1:
        return node, 0.0
    if reader.op == "call_function" and reader.target in _FUNCTIONS:
        return reader, _FUNCTIONS[reader.target]
    module = network.get_submodule(str(reader.target)) if reader.op == "call_module" else None
    if module is not None and type(module) in _BOUNDS and not has_hooks(module):
        return reader, _BOUNDS[type(module)]
    return node, 0.0
