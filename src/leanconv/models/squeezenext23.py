"""SqueezeNext-23 for photos.

Gholami et al., 2018, arXiv 1803.10615, as in the authors' Caffe definitions, amirgholami/SqueezeNext, for images of 227
pixels.  Two 1x1 convolutions narrow a block to a quarter before a 3x1 and a 1x3 convolution, whose order alternates.
"""

from typing import Literal, get_args

from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import Classifier, ConvNet, Stem, check_stem, check_width_multiplier, conv_norm
from leanconv.models.zoo import Source, register_model
from leanconv.ops.geometry import check_groups

#: The first version, or the fifth, which has fewer blocks early, more late, and a smaller stem.
Version = Literal["v1", "v5"]
DEPTHS: dict[Version, tuple[int, int, int, int]] = {"v1": (6, 6, 8, 1), "v5": (2, 4, 14, 1)}


class SqueezeNextBlock(nn.Module):
    """1x1 to a half, 1x1 to a quarter, 3x1 and 1x3 at a half, 1x1 back, and a shortcut; ReLU after each and the sum.

    Args:
        in_channels: Channels read.
        out_channels: Channels written, a multiple of ``4 groups``.
        stride: Stride of the first 1x1 convolution.
        groups: Groups of the first 1x1, the 3x1 and the 1x3 convolution.
        tall_first: Whether the 3x1 convolution precedes the 1x3.
        projects: Whether the shortcut is a 1x1 convolution, else the identity.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        groups: int = 1,
        tall_first: bool = True,
        projects: bool = False,
    ) -> None:
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        kernels = ((3, 1), (1, 3)) if tall_first else ((1, 3), (3, 1))
        self.body = nn.Sequential(
            conv_norm(in_channels, half, 1, stride, groups=groups),
            conv_norm(half, quarter),
            conv_norm(quarter, half, kernels[0], groups=groups),
            conv_norm(half, half, kernels[1], groups=groups),
            conv_norm(half, out_channels),
        )
        self.shortcut = conv_norm(in_channels, out_channels, 1, stride) if projects else nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H/stride, W/stride)``."""
        y: Tensor = self.act(self.body(x) + self.shortcut(x))
        return y


class SqueezeNext(ConvNet):
    """SqueezeNext-23 of four stages at strides 4, 8, 16 and 32 (1, 2, 4 and 8 with the small stem).

    Args:
        width_multiplier: Factor on the channels of the stages, rounded to multiples of ``4 groups``; the stem of 64
            and the last convolution of 128 channels stay.
        groups: Groups within the blocks (2 in the network with a G in its name).
        version: See :data:`Version`.
        stem: ``"imagenet"``, or ``"cifar"`` for images of 32 pixels: 3x3 of stride 1, no pooling.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``version`` or ``stem`` is unknown, ``groups`` does not divide the channels or ``width_multiplier``
            is out of range.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        width_multiplier: float = 1.0,
        *,
        groups: int = 1,
        version: Version = "v1",
        stem: Stem = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        check_stem(stem)
        check_width_multiplier(width_multiplier)
        check_groups(groups, **{"the 64 channels of the stem": 64})
        if version not in get_args(Version):
            raise UserError(f"`version` must be 'v1' or 'v5', got {version!r}.")
        unit = 4 * groups
        first, channels = max(1, round(32 * width_multiplier / unit)) * unit, 64
        stages = []
        for stage, depth in enumerate(DEPTHS[version]):
            width, stride = first * 2**stage, 1 if stage == 0 else 2
            blocks: list[nn.Module] = []
            if version == "v5":
                # One convolution changes the shape for both branches of the first block, rather than each for itself.
                blocks.append(conv_norm(channels, width, 1, stride))
                channels, stride = width, 1
            for index in range(depth):
                block = SqueezeNextBlock(
                    channels,
                    width,
                    stride if index == 0 else 1,
                    groups=groups,
                    tall_first=index % 2 == 0,
                    # Even where a first block changes no shape, as in the first stage at width 2.
                    projects=version == "v1" and index == 0,
                )
                blocks.append(block)
                channels = width
            stages.append(nn.Sequential(*blocks))
        super().__init__(
            _stem(in_channels, 7 if version == "v1" else 5, stem),
            stages,
            nn.Sequential(conv_norm(channels, 128), Classifier(128, num_classes)),
            features_only=features_only,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # Caffe's "xavier": uniform, with variance 1 / fan-in.
                nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")


def _stem(in_channels: int, kernel_size: int, stem: Stem) -> nn.Module:
    """Return an unpadded strided convolution and pooling that rounds up, as in Caffe, or the small stem."""
    if stem == "cifar":
        return conv_norm(in_channels, 64, 3)
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, kernel_size, 2, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    )


_SOURCE = Source(
    "Gholami et al. 2018, arXiv 1803.10615; amirgholami/SqueezeNext",
    certain="all, from the Caffe definitions",
    chosen="rounding at other widths, the small stem",
)
for _name, _published, _options in (
    ("squeezenext23_100", "0.72 M / 282 M", {}),
    ("squeezenext23_200", "", {"width_multiplier": 2.0}),
    ("squeezenext23_g_100", "", {"groups": 2}),
    ("squeezenext23_v5_100", "", {"version": "v5"}),
    ("squeezenext23_v5_200", "3.2 M / 708 M", {"version": "v5", "width_multiplier": 2.0}),
):
    register_model(
        _name,
        SqueezeNext,
        _SOURCE,
        published=_published,
        input_size=(3, 227, 227),
        num_classes=1000,
        small={"width_multiplier": 0.5},
        **_options,
    )
