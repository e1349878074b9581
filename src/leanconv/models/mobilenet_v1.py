"""MobileNet, the first version.

Howard et al., 2017, arXiv 1704.04861, table 1: depthwise 3x3 and pointwise convolutions in turn, batch norm and ReLU
after each.  A width multiplier scales all channels.
"""

from collections.abc import Sequence

from torch import nn

from leanconv.errors import UserError
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

#: Channels that the pairs of a depthwise and a pointwise convolution of each resolution write, and how many there are.
PLANES = (64, 128, 256, 512, 1024)
DEPTHS = (1, 2, 2, 6, 2)


class MobileNetV1(ConvNet):
    """Thirteen depthwise separable pairs in five stages at strides 2, 4, 8, 16 and 32.

    Args:
        width_multiplier: Factor on all channels, which are rounded down, to 8 at least.
        depths: Pairs a stage.
        stem: ``"imagenet"``, or ``"cifar"`` with stride 1 for images of 32 pixels.
        dropout: Probability of zeroing a pooled feature while training.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``width_multiplier`` or ``dropout`` is out of range, ``stem`` unknown, or ``depths`` are not five
            positive numbers.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        width_multiplier: float = 1.0,
        *,
        depths: Sequence[int] = DEPTHS,
        stem: Stem = "imagenet",
        dropout: float = 0.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        check_stem(stem)
        check_width_multiplier(width_multiplier)
        if len(depths) != len(PLANES) or min(depths) < 1:
            raise UserError(f"`depths` must be {len(PLANES)} positive numbers, got {depths}; {DEPTHS} would work.")
        width = first = max(8, int(32 * width_multiplier))
        stages: list[nn.Module] = []
        for channels, depth in zip(PLANES, depths, strict=True):
            pairs = []
            scaled = max(8, int(channels * width_multiplier))
            for index in range(depth):
                stride = 2 if stages and index == 0 else 1
                pairs.append(nn.Sequential(conv_norm(width, width, 3, stride, groups=width), conv_norm(width, scaled)))
                width = scaled
            stages.append(nn.Sequential(*pairs))
        super().__init__(
            conv_norm(in_channels, first, 3, 2 if stem == "imagenet" else 1),
            stages,
            Classifier(width, num_classes, dropout),
            features_only=features_only,
        )
        he_fan_out(self)


_SOURCE = Source(
    "Howard et al. 2017, arXiv 1704.04861",
    certain="all layers: four published sizes are reproduced",
    chosen="weights start from N(0, 2 / fan-out); the small stem only drops the first stride",
)
for _percent, _published in {
    25: "0.5 M / 41 M",
    50: "1.3 M / 149 M",
    75: "2.6 M / 325 M",
    100: "4.2 M / 569 M",
}.items():
    register_model(
        f"mobilenet_v1_{_percent:03d}",
        MobileNetV1,
        _SOURCE,
        published=_published,
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"width_multiplier": 0.25},
        width_multiplier=_percent / 100,
    )
