"""Rules for operators that combine elements: convolutions, pooling, products, reductions and normalisation."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from leanconv.receptive.call import Call, Outcome, UnknownReachError, rule
from leanconv.receptive.relation import Relation, join


@rule("conv1d", "conv2d", "conv3d", "convolution")
def convolution(call: Call) -> Outcome:
    """Slide windows over space and combine the channels of each group."""
    if call.arguments.get("transposed"):
        return transposed_convolution(call)
    relation, groups = call.relation("input"), int(call["groups"])
    outs, *kernel = _weight_shape(call)
    axes = len(kernel)
    if len(relation.shape) != axes + 2:
        raise UnknownReachError("a convolution without a batch")
    stride, dilation = call.per_axis("stride", axes), call.per_axis("dilation", axes)
    before = _padding(call, kernel, dilation)
    mask = call.weight_mask()
    geometry = list(zip(call.shape[2:], kernel, stride, before, dilation, strict=True))
    if mask is None:
        relation = mix_channels(relation, outs, groups)
        for axis, (length, size, step, first, distance) in enumerate(geometry):
            relation = relation.window(2 + axis, length, size, step, first, distance)
        return relation
    parts = []
    for taps in itertools.product(*(range(size) for size in kernel)):
        part, weights = relation, mask
        for axis, (length, _, step, first, distance) in enumerate(geometry):
            part = part.window(2 + axis, length, 1, step, first - taps[axis] * distance)
            weights = weights.select(2, taps[axis])
        parts.append(mix_masked_channels(part, weights, groups))
    return join(parts, call.shape)


def _weight_shape(call: Call) -> tuple[int, ...]:
    """Return the output channels and kernel sizes of a convolution."""
    weight = call["weight"]
    shape = weight.shape if isinstance(weight, Relation) else tuple(weight.meta["val"].shape)
    return (shape[0], *shape[2:])


def _padding(call: Call, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    padding = call["padding"]
    if padding == "same":
        return [distance * (size - 1) // 2 for size, distance in zip(kernel, dilation, strict=True)]
    return [0] * len(kernel) if padding == "valid" else call.per_axis("padding", len(kernel))


def mix_channels(relation: Relation, outs: int, groups: int) -> Relation:
    """Let each of ``outs`` channels depend on all channels of its group (dimension 1)."""
    channels = relation.shape[1]
    if groups == channels:
        repeats = outs // channels
        if repeats == 1:
            return relation
        return relation.pick(1, torch.arange(channels).repeat_interleave(repeats))
    relation = relation.forget(1)
    if relation.is_uniform(1):
        return relation.with_dim(1, outs)
    if groups == 1:
        return relation.spread(1).with_dim(1, outs)
    grouped = relation.values.unflatten(1 + 1, (groups, -1)).amax(3)
    return relation.with_dim(1, outs, grouped.repeat_interleave(outs // groups, 2))


def mix_masked_channels(relation: Relation, mask: Tensor, groups: int) -> Relation:
    """Let each channel depend on the channels of its group where ``mask``, ``(outs, channels / groups)``, says so."""
    outs, width = mask.shape
    full = torch.zeros(outs, groups, width, dtype=torch.bool)
    full[torch.arange(outs), torch.arange(outs) // (outs // groups)] = mask
    return relation.forget(1).mix(1, full.flatten(1))


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(call: Call) -> Outcome:
    """Spread every sample over a window."""
    relation, groups = call.relation("input"), int(call["groups"])
    weight = call["weight"]
    if isinstance(weight, Relation):
        raise UnknownReachError("a transposed convolution whose weight depends on the image")
    _, outs, *kernel = tuple(weight.meta["val"].shape)
    axes = len(kernel)
    relation = mix_channels(relation, outs * groups, groups)
    geometry = (call.per_axis(name, axes) for name in ("stride", "padding", "dilation"))
    for axis, (size, step, before, distance) in enumerate(zip(kernel, *geometry, strict=True)):
        old, new = relation.shape[2 + axis], call.shape[2 + axis]
        reached = torch.arange(old).unsqueeze(1) * step - before + torch.arange(size) * distance
        matrix = (torch.arange(new).view(-1, 1, 1) == reached).any(2)
        relation = relation.mix(2 + axis, matrix)
    return relation


@rule(*(f"{kind}_pool{dims}d" for kind in ("avg", "max") for dims in (1, 2, 3)))
def pool(call: Call) -> Outcome:
    """Slide windows over space, each channel for itself."""
    relation = call.inputs[0]
    axes = int(str(call.node.target).split("_pool")[1][0])
    kernel = call.per_axis("kernel_size", axes)
    stride = call.per_axis("stride", axes) if call["stride"] else kernel
    padding = call.per_axis("padding", axes)
    dilation = call.per_axis("dilation", axes) if "dilation" in call.arguments else [1] * axes
    first = len(relation.shape) - axes
    for axis in range(axes):
        relation = relation.window(
            first + axis, call.shape[first + axis], kernel[axis], stride[axis], padding[axis], dilation[axis]
        )
    return relation


@rule(*(f"max_pool{dims}d_with_indices" for dims in (2, 3)))
def pool_with_indices(call: Call) -> Outcome:
    """Slide windows over space; the indices depend on the same samples."""
    pooled = pool(call)
    assert isinstance(pooled, Relation)
    return [pooled, pooled]


@rule(*(f"adaptive_{kind}_pool{dims}d" for kind in ("avg", "max") for dims in (1, 2, 3)))
def adaptive_pool(call: Call) -> Outcome:
    """Divide each axis into almost equal parts."""
    relation, many = call.inputs[0], len(call.shapes) > 1
    for dim, (old, new) in enumerate(zip(relation.shape, call.shape, strict=True)):
        if old == new:
            continue
        if new == 1:
            relation = relation.spread(dim).with_dim(dim, 1)
        elif old % new == 0:
            relation = relation.window(dim, new, old // new, old // new, 0)
        else:
            index, sample = torch.arange(new).unsqueeze(1), torch.arange(old)
            matrix = (sample >= index * old // new) & (sample < -(-(index + 1) * old // new))
            relation = relation.mix(dim, matrix)
    return [relation, relation] if many else relation


@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d")
def upsample_nearest(call: Call) -> Outcome:
    """Repeat samples."""
    return _upsampled(call, "nearest-exact" if "exact" in str(call.node.target) else "nearest", None)


@rule("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "_upsample_bilinear2d_aa")
def upsample_linear(call: Call) -> Outcome:
    """Interpolate between neighbouring samples."""
    if "_aa" in str(call.node.target):
        raise UnknownReachError("interpolation with smoothing")
    return _upsampled(call, "linear", bool(call["align_corners"]))


def _upsampled(call: Call, mode: str, align_corners: bool | None) -> Relation:
    relation = call.inputs[0]
    for dim in range(2, len(relation.shape)):
        old, new = relation.shape[dim], call.shape[dim]
        if old != new:
            identity = torch.eye(old, dtype=torch.float64).unsqueeze(0)
            matrix = F.interpolate(identity, size=new, mode=mode, align_corners=align_corners)[0]
            relation = relation.mix(dim, matrix.mT != 0)
    return relation


@rule("linear")
def linear(call: Call) -> Outcome:
    """Combine the last dimension."""
    if isinstance(call["weight"], Relation):
        return contraction("...i,oi->...o", [call["input"], call["weight"]], call.shape)
    relation = call.relation("input")
    last = len(relation.shape) - 1
    mask = call.weight_mask()
    if mask is not None:
        return relation.forget(last).mix(last, mask)
    return relation.forget(last).spread(last).with_dim(last, call.shape[-1])


@rule("matmul", "mm", "bmm", "mv")
def matmul(call: Call) -> Outcome:
    """Combine the last dimension of one tensor with the last but one of the other."""
    first, second = [value for name, value in call.arguments.items() if name in ("self", "other", "mat2", "vec")]
    ranks = [len(_operand_shape(value)) for value in (first, second)]
    if min(ranks) == 1:
        equation = {(1, 1): "k,k->", (1, 2): "k,kj->j", (2, 1): "ik,k->i"}.get((ranks[0], ranks[1]))
        if equation is None:
            raise UnknownReachError("a product with a vector")
        return contraction(equation, [first, second], call.shape)
    return contraction("...ik,...kj->...ij", [first, second], call.shape)


@rule("addmm", "baddbmm")
def addmm(call: Call) -> Outcome:
    """Add a matrix product."""
    names = ("mat1", "mat2") if "mat1" in call.arguments else ("batch1", "batch2")
    operands = [call[name] for name in names]
    parts = [call["self"]] if isinstance(call["self"], Relation) else []
    if any(isinstance(operand, Relation) for operand in operands):
        parts.append(contraction("...ik,...kj->...ij", operands, call.shape))
    return join(parts, call.shape)


@rule("einsum")
def einsum(call: Call) -> Outcome:
    """Combine what the equation sums over."""
    return contraction(call["equation"].replace(" ", ""), call["tensors"], call.shape)


def _operand_shape(value: object) -> tuple[int, ...]:
    return value.shape if isinstance(value, Relation) else tuple(value.meta["val"].shape)  # type: ignore[attr-defined]


def contraction(equation: str, operands: Sequence[object], shape: Sequence[int]) -> Relation:
    """Return the relation of an Einstein sum; constant operands are taken to be full."""
    if "->" not in equation:
        raise UnknownReachError("an Einstein sum without an arrow")
    inputs, output = equation.split("->")
    broadcast = "ABCDEFGH"
    rank = len(shape) - len(output.replace("...", ""))
    output = output.replace("...", broadcast[:rank])
    parts = []
    for names, operand in zip(inputs.split(","), operands, strict=True):
        if not isinstance(operand, Relation):
            continue
        missing = len(operand.shape) - len(names.replace("...", ""))
        names = names.replace("...", broadcast[rank - missing : rank])
        if len(set(names)) != len(names):
            raise UnknownReachError("an Einstein sum over a diagonal")
        summed = [dim for dim, name in enumerate(names) if name not in output]
        kept = [name for name in names if name in output]
        relation = operand.spread(*summed)
        relation = relation.drop(*summed).permute([kept.index(name) for name in output if name in kept])
        for dim, name in enumerate(output):
            if name not in kept:
                relation = relation.insert(dim)
        parts.append(relation)
    return join(parts, shape)


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Outcome:
    """Let every query depend on itself, all keys and all values."""
    parts = []
    for name in ("query", "key", "value"):
        if isinstance(call[name], Relation):
            relation: Relation = call[name]
            last = len(relation.shape) - 1
            if name != "value":
                relation = relation.forget(last).spread(last).with_dim(last, 1)
            if name != "query":
                relation = relation.forget(last - 1).spread(last - 1).with_dim(last - 1, 1)
            parts.append(relation)
    return join(parts, call.shape)


@rule("mean", "sum", "amax", "amin", "any", "all", "var", "std", "logsumexp", "prod", "norm", "linalg_vector_norm")
def reduction(call: Call) -> Outcome:
    """Combine whole dimensions."""
    relation = call.inputs[0]
    dims = _dims(call.arguments.get("dim"), len(relation.shape))
    reduced = relation.spread(*dims)
    if len(call.shape) == len(relation.shape):
        return replace(reduced, shape=call.shape)
    return reduced.drop(*dims)


@rule("max", "min", "var_mean", "std_mean", "median", "mode")
def reduction_with_indices(call: Call) -> Outcome:
    """Combine whole dimensions into two results, or two tensors elementwise."""
    if isinstance(call.arguments.get("other"), Relation):
        return join(call.inputs, call.shape)
    reduced = reduction(call)
    assert isinstance(reduced, Relation)
    return [reduced] * len(call.shapes) if len(call.shapes) > 1 else reduced


@rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def softmax(call: Call) -> Outcome:
    """Depend on a whole dimension."""
    return call.inputs[0].spread(call.dim())


@rule("layer_norm", "native_layer_norm", "rms_norm")
def layer_norm(call: Call) -> Outcome:
    """Depend on the whole of the last dimensions."""
    relation = call.inputs[0]
    rank = len(relation.shape)
    normalised = relation.spread(*range(rank - len(call["normalized_shape"]), rank))
    return [normalised] * len(call.shapes) if len(call.shapes) > 1 else normalised


@rule("group_norm")
def group_norm(call: Call) -> Outcome:
    """Depend on a group of channels at all positions."""
    relation, groups = call.inputs[0], int(call["num_groups"])
    relation = relation.spread(*range(2, len(relation.shape)))
    if relation.is_uniform(1):
        return relation
    grouped = relation.values.unflatten(2, (groups, -1)).amax(3)
    return relation.with_dim(1, relation.shape[1], grouped.repeat_interleave(relation.shape[1] // groups, 2))


@rule("instance_norm")
def instance_norm(call: Call) -> Outcome:
    """Depend on all positions of a channel."""
    relation = call.inputs[0]
    return relation.spread(*range(2, len(relation.shape)))


def _dims(value: int | list[int] | None, rank: int) -> list[int]:
    if value is None or value == []:
        return list(range(rank))
    dims = value if isinstance(value, list) else [value]
    return [dim % rank for dim in dims]


def everything(call: Call) -> Outcome:
    """Let every element of every output depend on all that the inputs depend on: the answer where nothing is known."""
    inputs = [relation.spread(*range(len(relation.shape))) for relation in call.inputs]
    lost = [relation.without_axes(range(len(relation.steps))) for relation in inputs]
    outcomes = []
    for shape in call.shapes:
        total = [r.drop(*range(len(r.shape))) for r in lost]
        joined = join(total, ())
        for length in reversed(shape):
            joined = joined.insert(0, length)
        outcomes.append(joined)
    return outcomes if len(outcomes) > 1 else outcomes[0]
