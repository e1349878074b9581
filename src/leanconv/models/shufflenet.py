"""ShuffleNet, both versions.

Zhang et al., 2017, arXiv 1707.01083 (V1: grouped pointwise convolutions and channel shuffle) and Ma et al., 2018, arXiv
1807.11164 (V2: channels split in two, ungrouped).  Both as in the authors' release, megvii-model/ShuffleNet-Series,
whose classifiers have no bias.  Its V1 shuffles after the depthwise convolution, and by the inverse of the paper's
permutation; its V2 shuffles where a unit begins.  The release's weights expect BGR images from 0 to 255.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import (
    Classifier,
    ConvNet,
    Stem,
    check_stem,
    check_width_multiplier,
    conv_norm,
    make_stages,
)
from leanconv.models.zoo import Source, register_model
from leanconv.ops.shuffle import ChannelShuffle2d

#: Units a stage, in both versions.
DEPTHS = (4, 8, 4)
#: Channels of the first stage of V1 by groups (table 1); they double each stage.
V1_PLANES = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
#: Channels of the three stages of V2 and of its last convolution by width multiplier (table 5).
V2_PLANES: dict[float, tuple[int, int, int, int]] = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}

#: V2 as its authors released it, or as torchvision has it: in a strided unit torchvision splits the output evenly
#: between the branches, it shuffles where a unit ends and by the inverse permutation, and its classifier has a bias.
Variant = Literal["official", "torchvision"]


class ShuffleUnit(nn.Module):
    """Unit of V1: grouped 1x1, depthwise 3x3, shuffle, grouped 1x1, and a shortcut.

    With stride 2 the shortcut is average pooling, beside which the unit puts what channels are missing.

    Args:
        in_channels: Channels read.
        planes: Channels written, a multiple of ``4 groups``.
        stride: 1 or 2.
        groups: Groups of the pointwise convolutions.
        first_groups: Groups of the first of them; by default ``groups``.
    """

    def __init__(
        self, in_channels: int, planes: int, stride: int = 1, *, groups: int = 3, first_groups: int | None = None
    ) -> None:
        super().__init__()
        self.out_channels = planes
        inner, written = planes // 4, planes if stride == 1 else planes - in_channels
        self.reduce = conv_norm(in_channels, inner, groups=groups if first_groups is None else first_groups)
        self.depthwise = conv_norm(inner, inner, 3, stride, groups=inner, activation=None)
        self.shuffle = ChannelShuffle2d(inner, inner // groups)
        self.expand = conv_norm(inner, written, groups=groups, activation=None)
        self.act = nn.ReLU()
        self.pool = nn.AvgPool2d(3, stride, 1) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, planes, H/stride, W/stride)``."""
        y: Tensor = self.expand(self.shuffle(self.depthwise(self.reduce(x))))
        if self.pool is None:
            result: Tensor = self.act(y + x)
            return result
        return torch.cat((self.pool(x), self.act(y)), 1)


class SplitShuffleUnit(nn.Module):
    """Unit of V2: half of the channels pass by, the other half go through 1x1, depthwise 3x3 and 1x1.

    With stride 2 both branches read all channels, and the first is a depthwise and a 1x1 convolution.

    Args:
        in_channels: Channels read.
        planes: Channels written, even.
        stride: 1 or 2.
        variant: See :data:`Variant`.
    """

    def __init__(self, in_channels: int, planes: int, stride: int = 1, *, variant: Variant = "official") -> None:
        super().__init__()
        self.out_channels, self.variant = planes, variant
        inner = planes // 2
        self.passed: nn.Module | None = None
        read, written = in_channels // 2, planes - in_channels // 2
        if stride > 1:
            read, written = in_channels, planes - in_channels if variant == "official" else inner
            self.passed = nn.Sequential(
                conv_norm(in_channels, in_channels, 3, stride, groups=in_channels, activation=None),
                conv_norm(in_channels, planes - written),
            )
        self.body = nn.Sequential(
            conv_norm(read, inner),
            conv_norm(inner, inner, 3, stride, groups=inner, activation=None),
            conv_norm(inner, written),
        )
        self.shuffle = ChannelShuffle2d(planes, 2) if variant == "torchvision" else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, planes, H/stride, W/stride)``."""
        if self.passed is not None:
            y = torch.cat((self.passed(x), self.body(x)), 1)
        else:
            # Every other channel, which is the shuffle with two groups undone, or halves shuffled afterwards.
            first, second = x.unflatten(1, (-1, 2)).unbind(2) if self.shuffle is None else x.chunk(2, 1)
            y = torch.cat((first, self.body(second)), 1)
        return y if self.shuffle is None else self.shuffle(y)


def _stem(in_channels: int, width: int, stem: Stem) -> nn.Module:
    """Return the 3x3 convolution and, for photos, its stride and the max-pooling."""
    check_stem(stem)
    if stem == "cifar":
        return conv_norm(in_channels, width, 3)
    return nn.Sequential(conv_norm(in_channels, width, 3, 2), nn.MaxPool2d(3, 2, 1))


def _initialise(network: ConvNet) -> None:
    """Draw weights as the authors' code does: N(0, 0.01²) at both ends, N(0, 1 / channels²) between."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1 / module.weight.shape[1])
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 1e-4)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
    first = next(module for module in network.stem.modules() if isinstance(module, nn.Conv2d))
    nn.init.normal_(first.weight, std=0.01)


class ShuffleNetV1(ConvNet):
    """ShuffleNet V1 of three stages at strides 8, 16 and 32 (2, 4 and 8 with the small stem).

    Args:
        groups: Groups of the pointwise convolutions: 1, 2, 3, 4 or 8.
        width_multiplier: Factor on the channels of the stages, rounded to multiples of ``4 groups``.
        stem: ``"imagenet"``, or ``"cifar"`` for images of 32 pixels: stride 1, no pooling.
        classifier_bias: Whether the classifier has a bias, as the paper's sizes suggest and the release has not.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``groups`` or ``stem`` is unknown or ``width_multiplier`` is out of range.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        groups: int = 3,
        width_multiplier: float = 1.0,
        *,
        stem: Stem = "imagenet",
        classifier_bias: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        if groups not in V1_PLANES:
            near = min(V1_PLANES, key=lambda known: abs(known - groups))
            raise UserError(f"`groups` must be one of 1, 2, 3, 4, 8, got {groups}; {near} would work.")
        check_width_multiplier(width_multiplier)
        unit = 4 * groups
        first = max(1, round(V1_PLANES[groups] * width_multiplier / unit)) * unit
        # What a strided unit adds to its shortcut must divide into groups too.
        width = -(-round(24 * min(1, width_multiplier)) // groups) * groups if width_multiplier < 2 else 48
        blocks = iter(range(sum(DEPTHS)))

        def block(channels: int, planes: int, stride: int) -> ShuffleUnit:
            # The first convolution of all reads few channels and is not grouped.
            return ShuffleUnit(channels, planes, stride, groups=groups, first_groups=1 if next(blocks) == 0 else None)

        planes = [first * 2**stage for stage in range(3)]
        super().__init__(
            _stem(in_channels, width, stem),
            make_stages(block, width, DEPTHS, planes, (2, 2, 2)),
            Classifier(planes[-1], num_classes, bias=classifier_bias),
            features_only=features_only,
        )
        _initialise(self)


class ShuffleNetV2(ConvNet):
    """ShuffleNet V2 of three stages at strides 8, 16 and 32 (2, 4 and 8 with the small stem).

    Args:
        width_multiplier: 0.5, 1, 1.5 or 2, a column of table 5.
        stem: ``"imagenet"``, or ``"cifar"`` for images of 32 pixels: stride 1, no pooling.
        variant: See :data:`Variant`.
        dropout: Probability of zeroing a pooled feature while training; the release takes 0.2 at width 2.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``width_multiplier``, ``stem`` or ``variant`` is unknown or ``dropout`` out of range.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        width_multiplier: float = 1.0,
        *,
        stem: Stem = "imagenet",
        variant: Variant = "official",
        dropout: float = 0.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        if width_multiplier not in V2_PLANES:
            near = min(V2_PLANES, key=lambda known: abs(known - width_multiplier))
            raise UserError(
                f"`width_multiplier` must be 0.5, 1, 1.5 or 2 in ShuffleNet V2, got {width_multiplier}; "
                f"{near:g} would work."
            )
        if variant not in get_args(Variant):
            raise UserError(f"`variant` must be 'official' or 'torchvision', got {variant!r}.")
        *planes, last = V2_PLANES[width_multiplier]

        def block(channels: int, width: int, stride: int) -> SplitShuffleUnit:
            return SplitShuffleUnit(channels, width, stride, variant=variant)

        super().__init__(
            _stem(in_channels, 24, stem),
            make_stages(block, 24, DEPTHS, planes, (2, 2, 2)),
            nn.Sequential(
                conv_norm(planes[-1], last), Classifier(last, num_classes, dropout, bias=variant == "torchvision")
            ),
            features_only=features_only,
        )
        _initialise(self)


_V1 = Source(
    "Zhang et al. 2017, arXiv 1707.01083; megvii-model/ShuffleNet-Series",
    certain="all, the place and direction of the shuffle as in the release",
    chosen="rounding at other widths, the small stem",
)
_V2 = Source(
    "Ma et al. 2018, arXiv 1807.11164; megvii-model/ShuffleNet-Series",
    certain="all, as in the release; variant='torchvision' gives torchvision's outputs",
    chosen="the small stem",
)
#: MACs as the second paper prints them; of V1 the release gives one figure.
_V2_MACS = ("41 M", "146 M", "299 M", "591 M")
for _index, _width in enumerate(V2_PLANES):
    for _groups in (3, 8):
        register_model(
            f"shufflenet_v1_g{_groups}_{_width * 100:03.0f}",
            ShuffleNetV1,
            _V1,
            published="138 M" if _width == 1 else "",
            input_size=(3, 224, 224),
            num_classes=1000,
            small={"width_multiplier": 0.25},
            groups=_groups,
            width_multiplier=_width,
        )
    register_model(
        f"shufflenet_v2_{_width * 100:03.0f}",
        ShuffleNetV2,
        _V2,
        published=_V2_MACS[_index],
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"width_multiplier": 0.5},
        width_multiplier=_width,
        dropout=0.2 if _width == 2 else 0.0,
    )
