"""Rules for operators that move elements without combining them: views, slices, padding, concatenation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from leanconv.receptive.call import Call, Outcome, UnknownReachError, rule
from leanconv.receptive.relation import Relation, concatenate, join


@rule(
    *("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy", "type_as", "dropout", "prelu"),
    *("feature_dropout", "alpha_dropout", "feature_alpha_dropout", "batch_norm", "relu6", "hardswish", "mish"),
    *("_native_batch_norm_legit_no_training", "expand", "expand_as", "broadcast_to", "where"),
)
def elementwise(call: Call) -> Outcome:
    """Depend on the aligned elements of all inputs; batch norm, in evaluation, is one such operator."""
    return join(call.inputs, call.shape)


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
def view(call: Call) -> Outcome:
    """Keep the order of the elements."""
    return call.inputs[0].regroup(call.shape)


@rule("permute", "transpose", "movedim", "moveaxis", "t", "swapaxes", "swapdims", "numpy_T", "mT")
def permute(call: Call) -> Outcome:
    """Put the dimensions in another order, which is found by moving a tensor of distinguishable lengths."""
    relation = call.inputs[0]
    tokens = torch.empty(tuple(range(2, 2 + len(relation.shape))), device="meta")
    arguments = [tokens if isinstance(value, Relation) else value for value in call.arguments.values()]
    target: Any = call.node.target
    return relation.permute([length - 2 for length in target(*arguments).shape])


@rule("slice", "narrow")
def slice_(call: Call) -> Outcome:
    """Keep a range of one dimension."""
    relation, dim = call.inputs[0], call.dim()
    start, length = call["start"] or 0, call.shape[dim]
    if isinstance(start, fx.Node):
        raise UnknownReachError("a slice that depends on the image")
    start = max(0, start + relation.shape[dim] if start < 0 else start)
    return relation.cut(dim, start, length, call.arguments.get("step", 1))


@rule("select")
def select(call: Call) -> Outcome:
    """Keep one element of one dimension."""
    relation, dim = call.inputs[0], call.dim()
    index = call["index"] % relation.shape[dim]
    return relation.forget(dim).cut(dim, index, 1).drop(dim)


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")
def split(call: Call) -> Outcome:
    """Cut one dimension into parts."""
    relation, dim, start, parts = call.inputs[0], call.dim(), 0, []
    for shape in call.shapes:
        parts.append(relation.cut(dim, start, shape[dim]))
        start += shape[dim]
    return parts


@rule("unbind")
def unbind(call: Call) -> Outcome:
    """Cut one dimension into its elements."""
    relation, dim = call.inputs[0], call.dim()
    return [relation.forget(dim).cut(dim, index, 1).drop(dim) for index in range(relation.shape[dim])]


@rule("cat", "concat", "concatenate")
def cat(call: Call) -> Outcome:
    """Lay tensors end to end."""
    dim = call.dim()
    parts = [(part, _shape(part)) for part in call["tensors"]]
    parts = [(part, shape) for part, shape in parts if len(shape) == len(call.shape)]
    like = call.inputs[0]
    relations = [part if isinstance(part, Relation) else _independent(like, shape) for part, shape in parts]
    return concatenate(relations, [shape[dim] for _, shape in parts], dim)


@rule("stack")
def stack(call: Call) -> Outcome:
    """Lay tensors side by side along a new dimension."""
    dim, like = call.dim(rank=len(call.shape)), call.inputs[0]
    parts = [part if isinstance(part, Relation) else _independent(like, _shape(part)) for part in call["tensors"]]
    return concatenate([part.insert(dim) for part in parts], [1] * len(parts), dim)


@rule(*(f"{kind}_like" for kind in ("zeros", "ones", "full", "empty", "rand", "randn")))
def blank(call: Call) -> Outcome:
    """Take nothing but the shape."""
    return _independent(call.inputs[0], call.shape)


def _shape(part: Any) -> tuple[int, ...]:
    return part.shape if isinstance(part, Relation) else tuple(part.meta["val"].shape)


def _independent(like: Relation, shape: tuple[int, ...]) -> Relation:
    values = like.values.new_zeros(like.values.shape[0], *[1] * len(shape))
    return Relation(values, shape, like.labels, like.steps, like.view)


@rule("repeat", "tile", "repeat_interleave")
def repeat(call: Call) -> Outcome:
    """Write elements several times; which one stands where is found by repeating their numbers."""
    relation = call.inputs[0]
    for _ in range(len(call.shape) - len(relation.shape)):
        relation = relation.insert(0)
    target: Any = call.node.target
    options = [value for value in call.arguments.values() if not isinstance(value, Relation)]
    for dim, (old, new) in enumerate(zip(relation.shape, call.shape, strict=True)):
        if old != new:
            lengths = [old if other == dim else 1 for other in range(len(call.shape))]
            numbers = torch.arange(old).view(lengths).expand(relation.shape)
            index = target(numbers.contiguous(), *options).movedim(dim, -1).flatten(0, -2)[0]
            relation = relation.pick(dim, index)
    return relation


@rule("pad", "constant_pad_nd", *(f"{mode}_pad{dims}d" for mode in ("reflection", "replication") for dims in (1, 2, 3)))
def pad(call: Call) -> Outcome:
    """Add elements at the ends of dimensions, or take them away."""
    relation = call.inputs[0]
    name = str(call.node.target)
    mode = call.arguments.get("mode") or ("reflect" if "reflection" in name else "replicate")
    if "constant" in name:
        mode = "constant"
    amounts = list(call.arguments["pad" if "pad" in call.arguments else "padding"])
    for index, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        dim = len(relation.shape) - 1 - index
        if mode == "constant" or relation.projects(dim):
            relation = relation.pad(dim, before, after)
        else:
            numbers = torch.arange(relation.shape[dim], dtype=torch.float64).view(1, 1, -1)
            relation = relation.pick(dim, F.pad(numbers, (before, after), mode).flatten().long())
    return relation


@rule("roll", "flip")
def roll(call: Call) -> Outcome:
    """Turn dimensions around, found by doing so to their numbers."""
    relation = call.inputs[0]
    dims = call["dims"] if isinstance(call["dims"], list) else [call["dims"]]
    if not dims:
        raise UnknownReachError("a roll over all dimensions at once")
    shifts = call.arguments.get("shifts", [0] * len(dims))
    shifts = shifts if isinstance(shifts, list) else [shifts]
    for dim, shift in zip(dims, shifts, strict=True):
        numbers = torch.arange(relation.shape[dim])
        turned = numbers.flip(0) if "flip" in str(call.node.target) else numbers.roll(shift)
        relation = relation.pick(dim % len(relation.shape), turned)
    return relation


@rule("index_select")
def index_select(call: Call) -> Outcome:
    """Take elements of a dimension in any order."""
    return call.inputs[0].pick(call.dim(), call.constant(call["index"]).flatten().long())


@rule("index")
def index(call: Call) -> Outcome:
    """Take elements of one dimension in the order of an index."""
    relation, given = call.inputs[0], call["indices"]
    dims = [dim for dim, value in enumerate(given) if value is not None]
    if len(dims) != 1:
        raise UnknownReachError("an index into several dimensions")
    order: Tensor = call.constant(given[dims[0]])
    if order.dtype == torch.bool or order.dim() != 1:
        raise UnknownReachError("an index that is no list of numbers")
    return relation.pick(dims[0], order % relation.shape[dims[0]])


@rule("unfold")
def unfold(call: Call) -> Outcome:
    """Lay the taps of a sliding window along a new last dimension."""
    relation, dim = call.inputs[0], call.dim("dimension")
    length, size, step = call.shape[dim], call["size"], call["step"]
    if relation.projects(dim) or relation.is_uniform(dim):
        return relation.window(dim, length, size, step, 0).insert(len(relation.shape), size)
    taps = [relation.cut(dim, tap, length, step).insert(len(relation.shape)) for tap in range(size)]
    return concatenate(taps, [1] * size, len(relation.shape))


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> Outcome:
    """Move channels to samples between the samples."""
    relation, factor = call.inputs[0], call["upscale_factor"]
    *batch, channels, height, width = relation.shape
    n = len(batch)
    parts = relation.regroup((*batch, channels // factor**2, factor, factor, height, width))
    order = [*range(n + 1), n + 3, n + 1, n + 4, n + 2]
    return parts.permute(order).regroup(call.shape)


@rule("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Outcome:
    """Move samples to channels."""
    relation, factor = call.inputs[0], call["downscale_factor"]
    *batch, channels, height, width = relation.shape
    n = len(batch)
    parts = relation.regroup((*batch, channels, height // factor, factor, width // factor, factor))
    return parts.permute([*range(n + 1), n + 2, n + 4, n + 1, n + 3]).regroup(call.shape)


@rule("channel_shuffle")
def channel_shuffle(call: Call) -> Outcome:
    """Transpose the channels, seen as a matrix with a row a group."""
    relation, groups = call.inputs[0], call["groups"]
    batch, channels, *space = relation.shape
    parts = relation.regroup((batch, groups, channels // groups, *space))
    return parts.permute([0, 2, 1, *range(3, 3 + len(space))]).regroup(call.shape)
