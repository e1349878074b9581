"""Context module: dilated convolutions that see 67 x 67 samples without losing resolution.

Yu and Koltun, 2015, arXiv 1511.07122, section 3 and table 1; the release is fyu/dilation.  Seven 3x3 convolutions at
dilations 1, 1, 2, 4, 8, 16, 1, each followed by ReLU, then a 1x1 convolution: receptive fields 3, 5, 9, 17, 33, 65, 67
and 67.  Every one has a bias.

Cost at ``C`` channels: the basic form has ``64 C² + 8 C`` parameters and ``64 C² h w`` MACs; the large form widens to
``2 C, 2 C, 4 C, 8 C, 16 C, 32 C, 32 C`` on the way.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.dilated import DilatedConv2d, identity_
from leanconv.ops.geometry import to_tuple

#: Dilations of table 1; the network for Cityscapes inserts 32 and 64 before the last.
DILATIONS = (1, 1, 2, 4, 8, 16, 1)
#: Widths of the large form, in channels of the input.
LARGE = (2, 2, 4, 8, 16, 32, 32)


class ContextModule(nn.Module):
    """Dilated 3x3 convolutions with ReLU, then a 1x1 convolution; starts as the identity.

    Args:
        channels: Channels read and written, one for each class.
        dilations: Tap distance of each 3x3 convolution.
        multipliers: Width of each 3x3 convolution in multiples of ``channels``; all 1, the basic form, by default,
            :data:`LARGE` for the large form.
        padding: ``"same"`` keeps the size.  The network for Pascal VOC pads its image beforehand and takes
            ``"valid"``, which loses ``2 sum(dilations)`` samples an axis.
        noise: See :func:`~leanconv.ops.dilated.identity_`.

    Raises:
        UserError: A dilation is below 1 or the numbers of dilations and multipliers differ.

    Shapes:
        ``(N, channels, H, W)`` to the same, or smaller with ``"valid"``.  On input below zero the identity at the
        start is that of ``relu(x)``.
    """

    def __init__(
        self,
        channels: int,
        dilations: Sequence[int] = DILATIONS,
        multipliers: Sequence[int] | None = None,
        *,
        padding: Literal["same", "valid"] = "same",
        noise: float = 0.01,
    ) -> None:
        super().__init__()
        dilations = to_tuple(tuple(dilations), len(dilations), "dilations")
        multipliers = (1,) * len(dilations) if multipliers is None else tuple(multipliers)
        if len(multipliers) != len(dilations):
            raise UserError(
                f"`multipliers` must be one for each of the {len(dilations)} dilations, got {len(multipliers)}."
            )
        to_tuple(multipliers, len(multipliers), "multipliers")
        if padding not in ("same", "valid"):
            raise UserError(f"`padding` must be 'same' or 'valid', got {padding!r}.")
        layers: list[nn.Module] = []
        widths = [channels, *(channels * multiplier for multiplier in multipliers)]
        for (before, after), dilation in zip(pairwise(widths), dilations, strict=True):
            convolution = DilatedConv2d(before, after, padding=padding, dilation=dilation)
            layers += [convolution, nn.ReLU()]
        layers.append(nn.Conv2d(widths[-1], channels, 1))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                identity_(module.weight, channels, noise)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Gather context."""
        y: Tensor = self.layers(x)
        return y
