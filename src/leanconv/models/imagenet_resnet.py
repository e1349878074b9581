"""Residual networks for photos, ResNet-18 to ResNet-152.

He, Zhang, Ren and Sun, 2015, arXiv 1512.03385, table 1.  The stride stands on the 3x3 convolution of a bottleneck, as
in torchvision, whose weights load as they are; the paper has it on the first 1x1, with the same parameters and (in
ResNet-50) 5.7 % fewer MACs.
"""

from collections.abc import Sequence

from leanconv.errors import UserError
from leanconv.models.convnet import Stem, he_fan_out
from leanconv.models.resnet import BasicBlock, Bottleneck, ResNet
from leanconv.models.zoo import Source, register_model

#: Block and blocks a stage for each depth.
LAYOUTS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def layout(depth: int) -> tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]:
    """Return the block of a depth and the blocks of its four stages.

    Raises:
        UserError: The paper has no such network.
    """
    if depth not in LAYOUTS:
        raise UserError(f"`depth` must be one of {', '.join(map(str, LAYOUTS))}, got {depth!r}.")
    return LAYOUTS[depth]


class ImageNetResNet(ResNet):
    """ResNet of four stages at strides 4, 8, 16 and 32 (1, 2, 4 and 8 with the small stem).

    Weights start from N(0, 2 / fan-out), as in torchvision.

    Args:
        depth: 18, 34, 50, 101 or 152.
        depths: Blocks a stage, where they shall not be those of that network.
        base_width: Channels of the stem and planes of the first stage (64 in the paper).
        stem: ``"imagenet"``, or ``"cifar"`` for images of 32 pixels: 3x3 of stride 1, no pooling.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``depth`` or ``stem`` is unknown.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        depths: Sequence[int] | None = None,
        base_width: int = 64,
        stem: Stem = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        block, published = layout(depth)
        super().__init__(
            block,
            depths or published,
            base_width=base_width,
            stem=stem,
            num_classes=num_classes,
            in_channels=in_channels,
            features_only=features_only,
        )
        he_fan_out(self)


_SOURCE = Source(
    "He et al. 2015, arXiv 1512.03385, table 1",
    certain="all; torchvision's networks give the same outputs",
    chosen="stride on the 3x3 convolution of a bottleneck, as in torchvision",
)
#: Parameters and MACs as torchvision rounds its own counts of these networks.
_PUBLISHED = {
    18: "11.7 M / 1.81 G",
    34: "21.8 M / 3.66 G",
    50: "25.6 M / 4.09 G",
    101: "44.5 M / 7.80 G",
    152: "60.2 M / 11.51 G",
}
for _depth in LAYOUTS:
    register_model(
        f"resnet{_depth}",
        ImageNetResNet,
        _SOURCE,
        published=_PUBLISHED[_depth],
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"base_width": 4},
        depth=_depth,
    )
