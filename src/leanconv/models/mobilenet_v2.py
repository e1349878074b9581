"""MobileNetV2 and the frame of the networks derived from it.

Sandler, Howard, Zhu, Zhmoginov and Chen, 2018, arXiv 1801.04381, table 2: inverted residuals, which expand the
channels, filter them depthwise and project them down without an activation.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from leanconv.models.convnet import (
    Classifier,
    ConvNet,
    Stem,
    check_stem,
    check_width_multiplier,
    conv_norm,
    he_fan_out,
)
from leanconv.models.zoo import Source, register_model
from leanconv.ops.geometry import check_groups


@dataclass(frozen=True)
class Row:
    """A row of the paper's table 2.

    Attributes:
        expansion: Times the channels read that a block filters.
        channels: Channels its blocks write, before the width multiplier.
        depth: Blocks.
        stride: Stride of the first block.
    """

    expansion: int
    channels: int
    depth: int
    stride: int


#: Rows of table 2, those of one resolution together.
STAGES = (
    (Row(1, 16, 1, 1),),
    (Row(6, 24, 2, 2),),
    (Row(6, 32, 3, 2),),
    (Row(6, 64, 4, 2), Row(6, 96, 3, 1)),
    (Row(6, 160, 3, 2), Row(6, 320, 1, 1)),
)
STEM_CHANNELS, LAST_CHANNELS = 32, 1280


def scaled_channels(channels: int, width_multiplier: float) -> int:
    """Return the multiple of 8 nearest to ``channels * width_multiplier`` that loses no more than a tenth of it.

    As in the authors' and torchvision's code.
    """
    exact = channels * width_multiplier
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


class InvertedResidual(nn.Module):
    """Pointwise expansion (none at factor 1), depthwise 3x3, linear pointwise projection; figure 4(d) of the paper.

    The input is added where shapes allow.  The two places for attention are those of ANTNet and ECA-Net.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        stride: Stride of the depthwise convolution.
        expansion: Times ``in_channels`` that are filtered.
        groups: Groups of the projection.
        expanded_attention: Called with the expanded channels; its module acts before the projection.
        attention: Called with ``out_channels``; its module acts after the projection.

    Raises:
        UserError: ``groups`` does not divide ``out_channels`` or the expanded channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        expansion: int = 6,
        *,
        groups: int = 1,
        expanded_attention: Callable[[int], nn.Module] | None = None,
        attention: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        check_groups(groups, out_channels=out_channels, expanded_channels=inner)
        self.expand = conv_norm(in_channels, inner, activation=nn.ReLU6) if expansion > 1 else nn.Identity()
        self.depthwise = conv_norm(inner, inner, 3, stride, groups=inner, activation=nn.ReLU6)
        self.expanded_attention = expanded_attention(inner) if expanded_attention else nn.Identity()
        self.project = conv_norm(inner, out_channels, groups=groups, activation=None)
        self.attention = attention(out_channels) if attention else nn.Identity()
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H/stride, W/stride)``."""
        y: Tensor = self.attention(self.project(self.expanded_attention(self.depthwise(self.expand(x)))))
        return x + y if self.adds else y


class InvertedResidualNet(ConvNet):
    """The frame of MobileNetV2: stem, five stages at strides 2, 4, 8, 16 and 32, pointwise convolution, classifier.

    Weights start as in torchvision: N(0, 2 / fan-out), the classifier from N(0, 0.01²) and zero.

    Args:
        block: Called as ``block(row, in_channels, out_channels, stride)``.
        width_multiplier: Factor on all channels, rounded by :func:`scaled_channels`; the last convolution's are never
            fewer than 1280.
        stem: ``"imagenet"``, or ``"cifar"`` for images of 32 pixels: stem and 24-channel row with stride 1.
        dropout: Probability of zeroing a pooled feature while training.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``width_multiplier`` or ``dropout`` is out of range or ``stem`` unknown.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        block: Callable[[Row, int, int, int], nn.Module],
        *,
        width_multiplier: float,
        stem: Stem,
        dropout: float,
        num_classes: int,
        in_channels: int,
        features_only: bool,
    ) -> None:
        check_stem(stem)
        check_width_multiplier(width_multiplier)
        small = stem == "cifar"
        width = first = scaled_channels(STEM_CHANNELS, width_multiplier)
        stages = []
        for rows in STAGES:
            blocks = []
            for row in rows:
                channels = scaled_channels(row.channels, width_multiplier)
                stride = 1 if small and row.channels == 24 else row.stride
                for index in range(row.depth):
                    blocks.append(block(row, width, channels, stride if index == 0 else 1))
                    width = channels
            stages.append(nn.Sequential(*blocks))
        last = scaled_channels(LAST_CHANNELS, max(1.0, width_multiplier))
        classifier = Classifier(last, num_classes, dropout)
        nn.init.normal_(classifier.fc.weight, std=0.01)
        nn.init.zeros_(classifier.fc.bias)
        super().__init__(
            conv_norm(in_channels, first, 3, 1 if small else 2, activation=nn.ReLU6),
            stages,
            nn.Sequential(conv_norm(width, last, activation=nn.ReLU6), classifier),
            features_only=features_only,
        )
        he_fan_out(self)


class MobileNetV2(InvertedResidualNet):
    """MobileNetV2; arguments, errors and shapes are those of :class:`InvertedResidualNet`."""

    def __init__(
        self,
        width_multiplier: float = 1.0,
        *,
        stem: Stem = "imagenet",
        dropout: float = 0.2,
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        super().__init__(
            lambda row, before, after, stride: InvertedResidual(before, after, stride, row.expansion),
            width_multiplier=width_multiplier,
            stem=stem,
            dropout=dropout,
            num_classes=num_classes,
            in_channels=in_channels,
            features_only=features_only,
        )


_SOURCE = Source(
    "Sandler et al. 2018, arXiv 1801.04381",
    certain="all; torchvision's network gives the same outputs",
    chosen="the strides of the small stem",
)
for _percent, _published in {35: "", 50: "", 75: "", 100: "3.4 M / 300 M", 140: "6.9 M / 585 M"}.items():
    register_model(
        f"mobilenet_v2_{_percent:03d}",
        MobileNetV2,
        _SOURCE,
        published=_published,
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"width_multiplier": 0.1},
        width_multiplier=_percent / 100,
    )
