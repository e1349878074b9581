"""Xception: separable convolutions, nothing between their halves, around linear shortcuts.

Chollet, 2016, arXiv 1610.02357, figure 5, for images of 299 pixels.
"""

from itertools import pairwise

from torch import Tensor, nn

from leanconv.models.convnet import Classifier, ConvNet, Stem, check_stem, conv_norm
from leanconv.models.zoo import Source, register_model
from leanconv.ops.separable import DepthwiseSeparableConv2d


def separable_norm(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Return a 3x3 separable convolution and batch norm."""
    return [
        DepthwiseSeparableConv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


class XceptionBlock(nn.Module):
    """Separable convolutions with ReLU before each, pooling where strided, and a shortcut.

    Args:
        widths: Channels before, between and after the separable convolutions.
        stride: 1, or 2 for 3x3 max-pooling and a strided 1x1 shortcut.
        leading_relu: Whether the block begins with ReLU; the first one of the network does not.
    """

    def __init__(self, widths: tuple[int, ...], stride: int = 1, *, leading_relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.ReLU(), *separable_norm(before, after)]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.body = nn.Sequential(*(layers if leading_relu else layers[1:]))
        self.shortcut = conv_norm(widths[0], widths[-1], 1, stride, activation=None) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, widths[0], H, W)`` to ``(N, widths[-1], H/stride, W/stride)``."""
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


class Xception(ConvNet):
    """Xception of four stages at strides 4, 8, 16 and 32 (2, 4, 8 and 16 with the small stem).

    Args:
        base_width: Channels of the first convolution (32 in the paper); all others keep their proportion to it.
        middle_blocks: Blocks of the middle flow (8 in the paper).
        stem: ``"imagenet"``, or ``"cifar"`` for images of 32 pixels: padded, without stride.
        dropout: Probability of zeroing a pooled feature while training (0.5 in the paper).
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``stem`` is unknown or ``dropout`` out of range.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        *,
        base_width: int = 32,
        middle_blocks: int = 8,
        stem: Stem = "imagenet",
        dropout: float = 0.5,
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        check_stem(stem)
        first, second, third, fourth, middle, wide, wider, last = (
            max(1, round(width * base_width / 32)) for width in (32, 64, 128, 256, 728, 1024, 1536, 2048)
        )
        padding, stride = (0, 2) if stem == "imagenet" else (1, 1)
        super().__init__(
            nn.Sequential(
                nn.Conv2d(in_channels, first, 3, stride, padding, bias=False),
                nn.BatchNorm2d(first),
                nn.ReLU(),
                nn.Conv2d(first, second, 3, 1, padding, bias=False),
                nn.BatchNorm2d(second),
                nn.ReLU(),
            ),
            [
                XceptionBlock((second, third, third), 2, leading_relu=False),
                XceptionBlock((third, fourth, fourth), 2),
                nn.Sequential(
                    XceptionBlock((fourth, middle, middle), 2),
                    *(XceptionBlock((middle,) * 4) for _ in range(middle_blocks)),
                ),
                nn.Sequential(
                    XceptionBlock((middle, middle, wide), 2),
                    *separable_norm(wide, wider),
                    nn.ReLU(),
                    *separable_norm(wider, last),
                    nn.ReLU(),
                ),
            ],
            Classifier(last, num_classes, dropout),
            features_only=features_only,
        )


register_model(
    "xception",
    Xception,
    Source(
        "Chollet 2016, arXiv 1610.02357, figure 5 and section 4",
        certain="all layers; timm's network gives the same outputs",
        chosen="the small stem; torch's default initialisation",
    ),
    published="22.86 M",
    input_size=(3, 299, 299),
    num_classes=1000,
    small={"base_width": 4, "middle_blocks": 2},
)
