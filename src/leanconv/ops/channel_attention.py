"""Channel attention: every channel is scaled by a number in (0, 1) computed from the averages of all channels.

The forms differ only in how averages become scores: :mod:`leanconv.ops.eca` and
:mod:`leanconv.ops.squeeze_excitation`.  What they share costs no multiply-accumulates of convolution or linear layers,
but two passes over the input: one to average it, one to scale it.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from leanconv.errors import UserError


class ChannelAttention(nn.Module, ABC):
    """Average pooling over space, scores for the channels, a sigmoid, and the product with the input.

    Args:
        channels: Channels read and written.

    Raises:
        UserError: ``channels`` is below 1.

    Shapes:
        ``(N, channels, *spatial)`` to the same, for any number of spatial axes from one on.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise UserError(f"`channels` must be at least 1, got {channels}.")
        self.channels = channels

    @abstractmethod
    def scores(self, averages: Tensor) -> Tensor:
        """Map channel averages ``(N, channels)`` to the logits of their scales, of the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of ``(N, channels, *spatial)``."""
        space = tuple(range(2, x.dim()))
        scales = self.scores(x.mean(space)).sigmoid()
        return x * scales.reshape(*scales.shape, *(1 for _ in space))

    def extra_repr(self) -> str:
        """Return the argument that the printed submodules do not show."""
        return str(self.channels)
