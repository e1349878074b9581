"""ANTNets: inverted residuals with channel attention on the expanded channels and a grouped projection.

Xiong, Kim and Hedau, 2019, arXiv 1904.03775.  The authors released no code.  Block and results are the paper's; the
reduction of each row is that of a third-party implementation; batch norm placement, no expansion at factor 1, its
projection ungrouped and attention without biases are our reading.  With two operations for each normalised and one for
each rectified or scaled value it takes 322.9 M and 267.0 M; the paper prints 322 M and 267 M.
"""

from functools import partial

from leanconv.models.convnet import Stem
from leanconv.models.mobilenet_v2 import InvertedResidual, InvertedResidualNet, Row
from leanconv.models.zoo import Source, register_model
from leanconv.ops.squeeze_excitation import SqueezeExcitation

#: Reduction of the attention by a row's channels: it grows from input to output.
REDUCTIONS = {16: 8, 24: 8, 32: 12, 64: 16, 96: 24, 160: 32, 320: 64}


class ANTBlock(InvertedResidual):
    """Inverted residual with attention between the depthwise convolution and a grouped projection.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        stride: Stride of the depthwise convolution.
        expansion: Times ``in_channels`` that are filtered and attended to.
        reduction: See :class:`~leanconv.ops.squeeze_excitation.SqueezeExcitation`.
        groups: Groups of the projection.

    Raises:
        UserError: ``groups`` does not divide ``out_channels``, or ``reduction`` is below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        expansion: int = 6,
        *,
        reduction: float = 8,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            stride,
            expansion,
            groups=groups,
            expanded_attention=partial(SqueezeExcitation, reduction=reduction, bias=False),
        )


class ANTNet(InvertedResidualNet):
    """MobileNetV2's table of ANT blocks.

    Args:
        groups: Groups of the projections, but for the first block's.
        width_multiplier: See :class:`~leanconv.models.mobilenet_v2.InvertedResidualNet`, also for what follows.
        stem: See there.
        dropout: See there.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``groups`` divides not all channels, ``width_multiplier`` or ``dropout`` is out of range or ``stem``
            unknown.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        groups: int = 1,
        *,
        width_multiplier: float = 1.0,
        stem: Stem = "imagenet",
        dropout: float = 0.2,
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        def block(row: Row, before: int, after: int, stride: int) -> ANTBlock:
            return ANTBlock(
                before,
                after,
                stride,
                row.expansion,
                reduction=REDUCTIONS[row.channels],
                groups=groups if row.expansion > 1 else 1,
            )

        super().__init__(
            block,
            width_multiplier=width_multiplier,
            stem=stem,
            dropout=dropout,
            num_classes=num_classes,
            in_channels=in_channels,
            features_only=features_only,
        )


_SOURCE = Source(
    "Xiong, Kim and Hedau 2019, arXiv 1904.03775",
    certain="block structure and published results",
    chosen="MobileNetV2's table and reductions after a third party; no expansion at factor 1 and its projection "
    "ungrouped; no attention biases; 0.1 M parameters above the published",
)
for _groups, _published in {1: "3.7 M / 322 M", 2: "3.2 M / 267 M"}.items():
    register_model(
        f"antnet_g{_groups}",
        ANTNet,
        _SOURCE,
        published=_published,
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"width_multiplier": 0.1},
        groups=_groups,
    )
