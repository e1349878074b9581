"""DiCENet: ShuffleNet's frame with DiCE units.

Mehta, Hajishirzi and Rastegari, 2019, arXiv 1906.03516, as in the authors' code (sacmehta/EdgeNets).  A DiCE unit has a
kernel for each row and each column of its map, so a network is made for images of one size; it resamples the maps of
others.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import ConvNet, Stem, check_stem, make_dropout
from leanconv.models.zoo import Source, register_model
from leanconv.ops.dice import DiCE
from leanconv.ops.geometry import Size, to_tuple
from leanconv.ops.shuffle import ChannelShuffle2d

#: Channels of the stem, the three stages and the first layer of the head, by width in percent.
PLANES: dict[int, tuple[int, int, int, int, int]] = {
    20: (16, 32, 64, 128, 1024),
    50: (24, 48, 96, 192, 1024),
    75: (24, 86, 172, 344, 1024),
    100: (24, 116, 232, 464, 1024),
    125: (24, 144, 288, 576, 1024),
    150: (24, 176, 352, 704, 1024),
    175: (24, 210, 420, 840, 1024),
    200: (24, 244, 488, 976, 1024),
    240: (24, 278, 556, 1112, 1280),
}
#: Units after the strided one, a stage.
DEPTHS = (3, 7, 3)
#: Groups of the first layer of the head.
HEAD_GROUPS = 4


def _conv_norm_act(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.PReLU(out_channels))


class StridedDiCE(nn.Module):
    """Unit of stride 2: depthwise separable beside average pooling and DiCE, shuffled; twice the channels.

    Args:
        in_channels: Channels read; twice as many are written.
        size: Height and width of the output.
    """

    def __init__(self, in_channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.separable = nn.Sequential(
            _conv_norm_act(in_channels, in_channels, 3, 2, in_channels), _conv_norm_act(in_channels, in_channels)
        )
        self.dice = nn.Sequential(
            nn.AvgPool2d(3, 2, 1), DiCE(in_channels, in_channels, size), _conv_norm_act(in_channels, in_channels)
        )
        self.shuffle = ChannelShuffle2d(2 * in_channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, 2 in_channels, ceil(H/2), ceil(W/2))``."""
        y: Tensor = self.shuffle(torch.cat((self.separable(x), self.dice(x)), 1))
        return y


class ShuffleDiCE(nn.Module):
    """Unit of stride 1: half of the channels pass by, the others go through 1x1 and DiCE; shuffled.

    Args:
        in_channels: Channels read, even; half of them pass by.
        out_channels: Channels written, even.
        size: Height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.passed = in_channels // 2
        inner = out_channels - self.passed
        self.body = nn.Sequential(_conv_norm_act(in_channels - self.passed, inner), DiCE(inner, inner, size))
        self.shuffle = ChannelShuffle2d(out_channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``."""
        passed, read = x.tensor_split((self.passed,), 1)
        y: Tensor = self.shuffle(torch.cat((passed, self.body(read)), 1))
        return y


class DiCEHead(nn.Module):
    """Global average pooling, a grouped and a full linear layer with dropout between; no activation.

    Args:
        in_channels: Channels of the last stage, a multiple of 4.
        hidden: Outputs of the first layer, a multiple of 4.
        num_classes: Outputs.
        dropout: Probability of zeroing a hidden feature while training.
    """

    def __init__(self, in_channels: int, hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.expand = nn.Conv2d(in_channels, hidden, 1, groups=HEAD_GROUPS, bias=False)
        self.dropout = make_dropout(dropout)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, num_classes)``."""
        logits: Tensor = self.fc(self.dropout(self.expand(self.pool(x)).flatten(1)))
        return logits


class DiCENet(ConvNet):
    """Strided 3x3 convolution and max-pooling, three stages of 4, 8 and 4 DiCE units, two linear layers.

    Args:
        planes: Channels of the stem, the three stages and the first layer of the head.
        image_size: Height and width of the images it is made for; by default 224 pixels, or 32 with the small stem.
            Images of other sizes work, at the price of resampling in every unit.
        stem: ``"imagenet"``, or ``"cifar"`` with stride 1 and without pooling for images of 32 pixels.
        dropout: Probability of zeroing a feature between the linear layers while training.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        planes: Sequence[int] = PLANES[100],
        *,
        image_size: Size | None = None,
        stem: Stem = "imagenet",
        dropout: float = 0.1,
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        check_stem(stem)
        _check_planes(planes)
        width, *stages, hidden = planes
        size = to_tuple((224 if stem == "imagenet" else 32) if image_size is None else image_size, 2, "image_size")
        begin: nn.Module = _conv_norm_act(in_channels, width, 3, 2 if stem == "imagenet" else 1)
        if stem == "imagenet":
            begin = nn.Sequential(begin, nn.MaxPool2d(3, 2, 1))
            size = _halved(_halved(size))
        built = []
        for channels, depth in zip(stages, DEPTHS, strict=True):
            size = _halved(size)
            units: list[nn.Module] = [StridedDiCE(width, size), ShuffleDiCE(2 * width, channels, size)]
            units += [ShuffleDiCE(channels, channels, size) for _ in range(depth - 1)]
            built.append(nn.Sequential(*units))
            width = channels
        head = DiCEHead(width, hidden, num_classes, dropout)
        # In the authors' code the classifier is a convolution, too.
        nn.init.kaiming_normal_(head.fc.weight, mode="fan_out")
        nn.init.zeros_(head.fc.bias)
        super().__init__(begin, built, head, features_only=features_only)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")


def _halved(size: tuple[int, ...]) -> tuple[int, int]:
    height, width = size
    return -(-height // 2), -(-width // 2)


def _check_planes(planes: Sequence[int]) -> None:
    """Check that units split and the head's groups divide.

    Raises:
        UserError: They do not.
    """
    example = "(24, 116, 232, 464, 1024) would work"
    if len(planes) != 5 or any(not isinstance(count, int) or count < 1 for count in planes):
        raise UserError(f"`planes` must be five positive integers, got {tuple(planes)}; {example}.")
    *stages, hidden = planes
    for read, written in pairwise(stages):
        if written % 2 or written <= read:
            raise UserError(f"`planes` must be even in a stage and grow, got {written} after {read}; {example}.")
    if stages[-1] % HEAD_GROUPS or hidden % HEAD_GROUPS:
        raise UserError(
            f"`planes` must end with two multiples of {HEAD_GROUPS}, got {stages[-1]} and {hidden}; {example}."
        )


_SOURCE = Source(
    "Mehta, Hajishirzi and Rastegari 2019, arXiv 1906.03516",
    certain="all: eight published sizes are reproduced",
    chosen="the small stem drops the first stride and the pooling",
)
#: MACs as the authors' repository prints them, by width in percent.
_PUBLISHED = {
    20: "14.90 M",
    50: "24.71 M",
    75: "46.83 M",
    100: "70.71 M",
    125: "98.11 M",
    150: "135.48 M",
    175: "182.24 M",
    200: "236.29 M",
}
for _percent, _planes in PLANES.items():
    register_model(
        f"dicenet_{_percent:03d}",
        DiCENet,
        _SOURCE,
        published=_PUBLISHED.get(_percent, ""),
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"planes": (8, 16, 32, 64, 64)},
        planes=_planes,
        dropout=0.2 if _percent > 100 else 0.1,
    )
