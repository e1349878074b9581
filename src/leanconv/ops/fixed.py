"""Operators without weights: permutations and shifts, which a convolution either is or is not."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from leanconv.errors import UserError
from leanconv.ops.geometry import Geometry
from leanconv.ops.structured import Conv, StructuredConv, geometry_of, ungrouped_weight


class FixedConv(StructuredConv):
    """A linear operator without weights.  Its :meth:`from_dense` recognises the convolution it equals."""

    @classmethod
    @abstractmethod
    def forms(cls, in_channels: int) -> Iterator[Self]:
        """Yield every operator of this class on so many channels that equals a convolution."""

    @classmethod
    @torch.no_grad()
    def from_dense(cls, conv: Conv, **_: Any) -> Self:
        """Return the operator that ``conv`` is.

        Raises:
            UserError: ``conv`` is no operator of this class; nothing in the structure could be fitted to it.
        """
        if conv.in_channels == conv.out_channels and (conv.bias is None or not conv.bias.any()):
            weight = ungrouped_weight(conv)
            for form in cls.forms(conv.in_channels):
                if form.geometry == geometry_of(conv) and torch.equal(
                    ungrouped_weight(form.dense()).to(weight), weight
                ):
                    return form.train(conv.training)
        raise UserError(f"`conv` must be a {cls.__name__} written as a convolution, got weights that are none: {conv}.")


class ChannelPermutation(FixedConv):
    """A fixed permutation of the channels that depends on their number and a number of groups.

    Args:
        in_channels: Channels read and written.
        groups: Groups of the convolution whose outputs are permuted.

    Attributes:
        channel_groups: The argument ``groups``; the attribute of that name is the dense equivalent's.
    """

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"in_channels": 12, "groups": 3},
        {"in_channels": 8, "groups": 4},
        {"in_channels": 8, "groups": 1},
    )

    def __init__(self, in_channels: int, groups: int) -> None:
        super().__init__()
        self.check(in_channels, groups)
        self.in_channels = self.out_channels = in_channels
        self.groups, self.channel_groups = 1, groups
        self.geometry = Geometry.of(self.dims, 1)

    @staticmethod
    @abstractmethod
    def check(channels: int, groups: int) -> None:
        """Raise a :class:`~leanconv.errors.UserError` unless so many channels can be permuted by groups."""

    @staticmethod
    @abstractmethod
    def permute(x: Tensor, groups: int) -> Tensor:
        """Return ``x`` with its channels (axis 1) in the new order."""

    def forward(self, x: Tensor) -> Tensor:
        """Permute the channels of ``(N, in_channels, *spatial)``."""
        return self.permute(x, self.channel_groups)

    @classmethod
    def forms(cls, in_channels: int) -> Iterator[Self]:
        """Yield the permutation for every number of groups that is possible."""
        for groups in range(1, in_channels + 1):
            try:
                yield cls(in_channels, groups)
            except UserError:
                continue

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"{self.in_channels}, groups={self.channel_groups}"
