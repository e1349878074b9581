"""Which samples of a source each element of a tensor depends on, for one axis at a time, without loss.

A :class:`Relation` is followed through a network operator by operator.  It is kept for a :class:`View`, a projection
of the source: one spatial axis (exactly which samples, borders included), its channels (exactly which), or the extent
of the window on an image without borders.  Dimensions a view does not look at, and dimensions along which nothing
differs, have length one, so that a relation stays small whatever the network's size.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

#: Extents are stored above this number, so that zero stands for "depends on nothing" as in the other views.
ORIGIN = 2.0**40


@dataclass(frozen=True)
class View:
    """A projection of the source.

    Attributes:
        axis: The spatial axis whose samples are told apart, or None.
        extents: Whether windows are followed as intervals of an image without borders; ``axis`` is None then.
    """

    axis: int | None = None
    extents: bool = False


@dataclass(frozen=True)
class Relation:
    """What the elements of a tensor depend on.

    Attributes:
        values: ``(probes, *shape)``, where any length after the first may be one instead.  Zero is independence.  In
            the view of an axis there is a probe a sample of the source, of its channels one a channel, and a one is
            dependence.  In the view of extents axis ``a`` has probes ``2 a`` and ``2 a + 1``: how far the window
            begins before, and ends after, ``step`` times the element's index, each plus :data:`ORIGIN`.
        shape: Of the tensor.
        labels: For each of its dimensions the spatial axis it runs along, or None.
        steps: Samples of the source from one element to the next along each spatial axis.
        view: The projection.
    """

    values: Tensor
    shape: tuple[int, ...]
    labels: tuple[int | None, ...]
    steps: tuple[float, ...]
    view: View

    @classmethod
    def of_source(cls, shape: Sequence[int], view: View) -> Self:
        """Return the relation of a tensor ``(N, C, *spatial)`` to itself.

        Without an axis and extents, the view is that of the channels.
        """
        axes = len(shape) - 2
        if view.extents:
            values = torch.full((2 * axes, *[1] * len(shape)), ORIGIN, dtype=torch.float64)
        else:
            dim = 1 if view.axis is None else 2 + view.axis
            lengths = [shape[index] if index == dim else 1 for index in range(len(shape))]
            values = torch.eye(shape[dim], dtype=torch.uint8).view(shape[dim], *lengths)
        return cls(values, tuple(shape), (None, None, *range(axes)), (1.0,) * axes, view)

    def projects(self, dim: int) -> bool:
        """Return whether this view does not look along a dimension."""
        return self.labels[dim] is not None and self.labels[dim] != self.view.axis

    def is_uniform(self, dim: int) -> bool:
        """Return whether the relation is the same along a whole dimension."""
        return self.values.shape[1 + dim] == 1

    def with_dim(self, dim: int, length: int, values: Tensor | None = None) -> Self:
        """Return a relation whose tensor has another length along a dimension."""
        shape = (*self.shape[:dim], length, *self.shape[dim + 1 :])
        return replace(self, shape=shape, values=self.values if values is None else values)

    def without_axes(self, axes: Iterable[int]) -> Self:
        """Return a relation in which windows along these axes are no longer known to be bounded."""
        rows = [row for axis in set(axes) for row in (2 * axis, 2 * axis + 1)]
        if not self.view.extents or not rows:
            return self
        values = self.values.clone()
        values[rows] = values[rows].where(values[rows] == 0, math.inf)
        return replace(self, values=values)

    def forget(self, *dims: int) -> Self:
        """Return a relation in which dimensions run along no spatial axis any more."""
        lost = {label for dim in dims if (label := self.labels[dim]) is not None and self.shape[dim] > 1}
        labels = tuple(None if dim in dims else label for dim, label in enumerate(self.labels))
        return replace(self.without_axes(lost), labels=labels)

    def expanded(self, *dims: int) -> Self:
        """Return the same relation with every element of some dimensions written out."""
        lengths = [-1, *(length if dim in dims else -1 for dim, length in enumerate(self.shape))]
        return replace(self, values=self.values.expand(lengths))

    def spread(self, *dims: int) -> Self:
        """Let every element depend on what any element along some dimensions depends on."""
        if not dims:
            return self
        lost = {label for dim in dims if (label := self.labels[dim]) is not None and self.shape[dim] > 1}
        known = self.without_axes(lost)
        return replace(known, values=known.values.amax([1 + dim for dim in dims], keepdim=True))

    def drop(self, *dims: int) -> Self:
        """Remove dimensions that are uniform."""
        kept = [dim for dim in range(len(self.shape)) if dim not in dims]
        return replace(
            self,
            values=self.values.squeeze([1 + dim for dim in dims]) if dims else self.values,
            shape=tuple(self.shape[dim] for dim in kept),
            labels=tuple(self.labels[dim] for dim in kept),
        )

    def insert(self, dim: int, length: int = 1) -> Self:
        """Add a dimension along which nothing differs."""
        return replace(
            self,
            values=self.values.unsqueeze(1 + dim),
            shape=(*self.shape[:dim], length, *self.shape[dim:]),
            labels=(*self.labels[:dim], None, *self.labels[dim:]),
        )

    def permute(self, dims: Sequence[int]) -> Self:
        """Put the dimensions in another order."""
        return replace(
            self,
            values=self.values.permute(0, *(1 + dim for dim in dims)),
            shape=tuple(self.shape[dim] for dim in dims),
            labels=tuple(self.labels[dim] for dim in dims),
        )

    def moved(self, dim: int, before: float, after: float, factor: float = 1) -> Self:
        """Widen the window along a projected dimension and multiply its step.

        Args:
            dim: The dimension.
            before: Elements by which the window of the first element begins earlier.
            after: Elements by which it ends later.
            factor: Old elements a new one.
        """
        axis = self.labels[dim]
        if not self.view.extents or axis is None:
            return self
        step = self.steps[axis]
        values = self.values.clone()
        for row, widening in ((2 * axis, before * step), (2 * axis + 1, after * step)):
            values[row] = torch.where(values[row] > 0, values[row] + widening, 0.0)
        steps = (*self.steps[:axis], step * factor, *self.steps[axis + 1 :])
        return replace(self, values=values, steps=steps)

    def window(self, dim: int, length: int, kernel: int, stride: int, before: int, dilation: int = 1) -> Self:
        """Slide a window along a dimension; what lies outside is independent of everything.

        Args:
            dim: The dimension.
            length: Of the result.
            kernel: Taps.
            stride: Step.
            before: Padding in front.
            dilation: Distance of the taps.
        """
        reach = dilation * (kernel - 1)
        if self.projects(dim):
            return self.moved(dim, before, reach - before, stride).with_dim(dim, length)
        if self.is_uniform(dim) and self._meets_samples(dim, length, kernel, stride, before, dilation):
            return self.with_dim(dim, length)
        missing = (length - 1) * stride + reach + 1 - before - self.shape[dim]
        values = _padded(self.expanded(dim).values, 1 + dim, before, max(0, missing))
        joined = _every(values, 1 + dim, 0, stride, length)
        for tap in range(1, kernel):
            joined = torch.maximum(joined, _every(values, 1 + dim, tap * dilation, stride, length))
        return self.with_dim(dim, length, joined)

    def _meets_samples(self, dim: int, length: int, kernel: int, stride: int, before: int, dilation: int) -> bool:
        """Return whether no position of a window lies in the padding alone."""
        read = torch.arange(length).unsqueeze(1) * stride - before + torch.arange(kernel) * dilation
        return bool(((read >= 0) & (read < self.shape[dim])).any(1).all())

    def pad(self, dim: int, before: int, after: int) -> Self:
        """Add, or with negative numbers take away, elements that depend on nothing."""
        length = self.shape[dim] + before + after
        if self.projects(dim):
            return self.moved(dim, before, -before).with_dim(dim, length)
        if self.is_uniform(dim) and before <= 0 and after <= 0:
            return self.with_dim(dim, length)
        return self.with_dim(dim, length, _padded(self.expanded(dim).values, 1 + dim, before, after))

    def cut(self, dim: int, start: int, length: int, step: int = 1) -> Self:
        """Keep ``length`` elements of a dimension, every ``step``-th from ``start`` on."""
        if self.projects(dim):
            return self.moved(dim, -start, start, step).with_dim(dim, length)
        if self.is_uniform(dim):
            return self.with_dim(dim, length)
        return self.with_dim(dim, length, _every(self.values, 1 + dim, start, step, length))

    def pick(self, dim: int, index: Tensor) -> Self:
        """Take elements of a dimension in any order."""
        if self.projects(dim):
            return self.without_axes([self.labels[dim] or 0]).with_dim(dim, len(index))
        if self.is_uniform(dim):
            return self.with_dim(dim, len(index))
        return self.with_dim(dim, len(index), self.values.index_select(1 + dim, index))

    def mix(self, dim: int, matrix: Tensor) -> Self:
        """Combine the elements of a dimension as a boolean matrix ``(new, old)`` says."""
        rows = matrix.shape[0]
        if self.projects(dim):
            return self.without_axes([self.labels[dim] or 0]).with_dim(dim, rows)
        values = self.expanded(dim).values.movedim(1 + dim, -1)
        if self.view.extents:
            mixed = torch.stack([values.where(row, 0).amax(-1) for row in matrix.bool()], -1)
        else:
            mixed = (values.float() @ matrix.float().mT > 0).to(values.dtype)
        return self.with_dim(dim, rows, mixed.movedim(-1, 1 + dim))

    def regroup(self, shape: Sequence[int]) -> Self:
        """Return the relation of the tensor viewed with another shape."""
        if self.shape == tuple(shape):
            return self
        relation, lengths, labels = self, list[int](), list[int | None]()
        for olds, news in matching_dims(self.shape, shape):
            if len(olds) == 1 and len(news) == 1:
                lengths.append(relation.values.shape[1 + olds[0]])
                labels.append(relation.labels[olds[0]])
                continue
            relation = relation.forget(*olds)
            if all(relation.is_uniform(dim) for dim in olds):
                lengths += [1] * len(news)
            else:
                relation = relation.expanded(*olds)
                lengths += [shape[dim] for dim in news]
            labels += [None] * len(news)
        values = relation.values.reshape(relation.values.shape[0], *lengths)
        return replace(relation, values=values, shape=tuple(shape), labels=tuple(labels))


def _padded(values: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Add zeros along a dimension, or take elements away, without moving it: memory in order is viewed, not copied."""
    return F.pad(values, (*[0, 0] * (values.dim() - 1 - dim), before, after))


def _every(values: Tensor, dim: int, start: int, step: int, length: int) -> Tensor:
    """Keep ``length`` elements of a dimension, every ``step``-th from ``start`` on."""
    return values[(slice(None),) * dim + (slice(start, start + length * step, step),)]


def matching_dims(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return which dimensions of a shape become which of another, in the smallest groups of equal size.

    Example:
        >>> matching_dims((1, 8, 5), (1, 2, 4, 5))
        [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        if i < len(old) and j < len(new) and old[i] == new[j]:
            groups.append(([i], [j]))
            i, j = i + 1, j + 1
        elif i < len(old) and old[i] == 1:
            groups.append(([i], []))
            i += 1
        elif j < len(new) and new[j] == 1:
            groups.append(([], [j]))
            j += 1
        else:
            olds, news, size, target = [i], [j], old[i], new[j]
            while size != target:
                if size < target:
                    olds.append(olds[-1] + 1)
                    size *= old[olds[-1]]
                else:
                    news.append(news[-1] + 1)
                    target *= new[news[-1]]
            groups.append((olds, news))
            i, j = olds[-1] + 1, news[-1] + 1
    return groups


def join(relations: Sequence[Relation], shape: Sequence[int]) -> Relation:
    """Return the relation of a tensor whose elements depend on the aligned elements of several others.

    Args:
        relations: Of tensors that broadcast to ``shape``.
        shape: Of the result.
    """
    aligned = []
    for relation in relations:
        for _ in range(len(shape) - len(relation.shape)):
            relation = relation.insert(0)
        aligned.append(relation)
    labels = tuple(_common_label([(r.labels[dim], r.shape[dim]) for r in aligned]) for dim in range(len(shape)))
    # Where dimensions disagree about what they run along, windows are no longer windows.
    aligned = [
        relation.forget(*(dim for dim, label in enumerate(labels) if label != relation.labels[dim]))
        for relation in aligned
    ]
    steps, torn = list(aligned[0].steps), set()
    for axis in set(labels) - {None}:
        assert axis is not None
        found = {r.steps[axis] for r in aligned if r.shape[labels.index(axis)] == shape[labels.index(axis)]}
        steps[axis] = max(found, default=steps[axis])
        if len(found) > 1:
            torn.add(axis)
    values = aligned[0].values
    for relation in aligned[1:]:
        values = torch.maximum(values, relation.values)
    return Relation(values, tuple(shape), labels, tuple(steps), aligned[0].view).without_axes(torn)


def _common_label(found: Sequence[tuple[int | None, int]]) -> int | None:
    """Return the axis that all operands of more than one element run along, if they agree."""
    long = {label for label, length in found if length > 1} or {label for label, _ in found}
    return long.pop() if len(long) == 1 else None


def concatenate(relations: Sequence[Relation], lengths: Sequence[int], dim: int) -> Relation:
    """Return the relation of tensors laid end to end along a dimension.

    Args:
        relations: One for each part; independent parts have zeros for values.
        lengths: Of the parts along ``dim``.
        dim: The dimension.
    """
    total = sum(lengths)
    if any(relation.projects(dim) for relation in relations):
        whole = join([relation.with_dim(dim, total) for relation in relations], relations[0].with_dim(dim, total).shape)
        return whole.without_axes({label for r in relations if (label := r.labels[dim]) is not None})
    same = [relation.with_dim(dim, 1, relation.values.narrow(1 + dim, 0, 1)) for relation in relations]
    frame = join(same, same[0].shape)
    lost = torch.isinf(frame.values) if frame.view.extents else None
    lengths_now = list(frame.values.shape)
    parts = [
        relation.values.expand(_with_length(lengths_now, dim, 1 if relation.is_uniform(dim) else length))
        for relation, length in zip(relations, lengths, strict=True)
    ]
    first = parts[0]
    if all(part.shape[1 + dim] == 1 and torch.equal(part, first) for part in parts):
        values = first
    else:
        full = [p.expand(_with_length(lengths_now, dim, length)) for p, length in zip(parts, lengths, strict=True)]
        values = torch.cat(full, 1 + dim)
    if lost is not None:
        # What the frame could not reconcile is lost to all parts.
        disagree = lost.flatten(1).any(1) & ~torch.stack([torch.isinf(p).flatten(1).any(1) for p in parts]).any(0)
        rows = disagree.nonzero().flatten().tolist()
        return replace(frame, values=values).without_axes(row // 2 for row in rows).with_dim(dim, total)
    return replace(frame, values=values).with_dim(dim, total)


def _with_length(lengths: Sequence[int], dim: int, length: int) -> list[int]:
    return [*lengths[: 1 + dim], length, *lengths[2 + dim :]]
