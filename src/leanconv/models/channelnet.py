"""ChannelNets: MobileNets whose pointwise layers give way to convolutions along the channels.

Gao, Wang and Ji, 2018, arXiv 1809.01330.  Version 1 thins the layers at stride 16 to grouped convolutions, fused by
grouped channel-wise ones; version 2 also replaces the last pointwise convolution, version 3 the classifier as well.
The layer table is certain for version 1, whose published sizes are reproduced at three widths.  No reading of the
paper reproduces its published FLOPs (407, 361 and 370 M): the MACs are our own count.

The authors' released code (HongyangGao/ChannelNets) differs from the table: skip connections concatenate at strides 2,
4 and 8, and residuals sit elsewhere at stride 16; see ``skips``.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import Classifier, ConvNet, Stem, check_stem, check_width_multiplier, conv_norm
from leanconv.models.zoo import Source, register_model
from leanconv.ops.channelwise import GroupedChannelwiseConv2d
from leanconv.ops.channelwise_classifier import ChannelwiseClassifier
from leanconv.ops.geometry import check_groups

#: Channels at strides 2, 4, 8, 16 and 32, those of the stem first.
PLANES = (32, 64, 128, 256, 512, 1024)
#: Taps of the single kernel in the place of the last pointwise convolution (section 3.3).
LAST_TAPS = 64
#: Side of the last feature map by stem, for images of 224 and 32 pixels.
LAST_SIDE = {"imagenet": 7, "cifar": 2}

#: Residuals as in the paper's table, or the released code's skips, which concatenate.
Skips = Literal["table", "released"]


class Skip(nn.Module):
    """Layers with a shortcut past them.

    Args:
        layers: One after the other.
        concatenate: Put the input before the output along the channels, instead of adding it.
    """

    def __init__(self, *layers: nn.Module, concatenate: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.concatenate = concatenate

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``, or to ``(N, C + out, H, W)``."""
        y: Tensor = self.body(x)
        return torch.cat((x, y), 1) if self.concatenate else x + y

    def extra_repr(self) -> str:
        """Return the argument that the printed submodules do not show."""
        return f"concatenate={self.concatenate}"


def separable(
    in_channels: int, out_channels: int, stride: int = 1, *, groups: int = 1, depthwise_norm: bool = False
) -> nn.Sequential:
    """Return a depthwise 3x3 and a (grouped) pointwise convolution, batch norm and ReLU6.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        stride: Of the depthwise convolution.
        groups: Of the pointwise convolution.
        depthwise_norm: Put batch norm between the two as well; the released code has nothing there.
    """
    return nn.Sequential(
        *_depthwise(in_channels, stride, depthwise_norm),
        conv_norm(in_channels, out_channels, groups=groups, activation=nn.ReLU6),
    )


def channelwise_separable(channels: int, *, depthwise_norm: bool = False) -> nn.Sequential:
    """Return a depthwise 3x3 convolution, one kernel of 64 taps along the channels, batch norm and ReLU6.

    What stands after the kernel is our reading, by analogy with :func:`separable`.
    """
    return nn.Sequential(
        *_depthwise(channels, 1, depthwise_norm),
        GroupedChannelwiseConv2d(channels, channel_kernel_size=LAST_TAPS),
        nn.BatchNorm2d(channels),
        nn.ReLU6(),
    )


def _depthwise(channels: int, stride: int, norm: bool) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels)] if norm else [conv]


class ChannelNet(ConvNet):
    """Twelve layers in five stages at strides 2 to 32, six of them grouped and thin at stride 16.

    Args:
        version: 1, 2 or 3.
        width_multiplier: Factor on all channels, which are rounded down, to 8 at least.
        groups: Groups ``g`` of the pointwise convolutions at stride 16 and of the convolutions along the channels,
            whose kernels have ``4 g`` taps; they divide the channels there, 512 at full width.
        fusion: Whether grouped channel-wise convolutions mix the groups; without is the paper's "v1(-)".
        depthwise_norm: Whether batch norm follows each depthwise convolution; our reading, after the released code,
            is that it does not.
        skips: ``"table"``, or ``"released"`` for the authors' released network.
        stem: ``"imagenet"``, or ``"cifar"`` with stride 1 for images of 32 pixels.
        num_classes: Outputs; version 3 needs at least as many channels at stride 32.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: An argument is out of range, or version 3 has more classes than channels.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        version: int = 1,
        *,
        width_multiplier: float = 1.0,
        groups: int = 2,
        fusion: bool = True,
        depthwise_norm: bool = False,
        skips: Skips = "table",
        stem: Stem = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        check_stem(stem)
        check_width_multiplier(width_multiplier)
        if version not in (1, 2, 3):
            raise UserError(f"`version` must be 1, 2 or 3, got {version!r}.")
        if skips not in ("table", "released"):
            raise UserError(f"`skips` must be 'table' or 'released', got {skips!r}.")
        released = skips == "released"
        first, *planes = (max(8, int(channels * width_multiplier)) for channels in PLANES)
        *early, thin, last = planes
        check_groups(groups, **{"channels at stride 16": thin})

        def layer(read: int, written: int, stride: int = 1, inner_groups: int = 1) -> nn.Sequential:
            return separable(read, written, stride, groups=inner_groups, depthwise_norm=depthwise_norm)

        stages: list[nn.Module] = []
        width = first
        for channels in early:
            entry = [layer(width, channels, 2)] if stages else []
            read = channels if entry else width
            body = layer(read, channels)
            stages.append(nn.Sequential(*entry, Skip(body, concatenate=True) if released else body))
            width = read + channels if released else channels
        thin_layers = [nn.Sequential(layer(thin, thin, 1, groups), layer(thin, thin, 1, groups)) for _ in range(3)]
        fusions = [GroupedChannelwiseConv2d(thin, groups) if fusion else nn.Identity() for _ in range(2)]
        if released:
            blocks = [
                Skip(thin_layers[0]),
                nn.Sequential(fusions[0], thin_layers[1]),
                Skip(fusions[1], thin_layers[2]),
            ]
        else:
            blocks = [Skip(thin_layers[0], fusions[0]), Skip(thin_layers[1], fusions[1]), Skip(thin_layers[2])]
        stages.append(nn.Sequential(layer(width, thin, 2), *blocks))
        end = layer(last, last) if version == 1 else channelwise_separable(last, depthwise_norm=depthwise_norm)
        stages.append(nn.Sequential(layer(thin, last, 2), end))
        head = (
            ChannelwiseClassifier(last, num_classes, LAST_SIDE[stem]) if version == 3 else Classifier(last, num_classes)
        )
        super().__init__(
            conv_norm(in_channels, first, 3, 2 if stem == "imagenet" else 1, activation=None if released else nn.ReLU6),
            stages,
            head,
            features_only=features_only,
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:  # weights; batch norm and biases have one axis
                nn.init.trunc_normal_(parameter, std=0.09, a=-0.18, b=0.18)


_SOURCE = Source(
    "Gao, Wang and Ji 2018, arXiv 1809.01330",
    certain="operators, version 1: its published sizes are reproduced at three widths",
    chosen="ReLU6 after the stem; batch norm and ReLU6 after the last channel-wise convolution; published FLOPs cannot "
    "be reproduced; the small stem only drops the first stride",
)
for _name, _published, _options in (
    ("channelnet_v1", "3.7 M / 407 M", {"version": 1}),
    ("channelnet_v1_075", "2.3 M / 234 M", {"version": 1, "width_multiplier": 0.75}),
    ("channelnet_v1_050", "1.2 M / 110 M", {"version": 1, "width_multiplier": 0.5}),
    ("channelnet_v2", "2.7 M / 361 M", {"version": 2}),
    ("channelnet_v3", "1.7 M / 370 M", {"version": 3}),
):
    register_model(
        _name,
        ChannelNet,
        _SOURCE,
        published=_published,
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"width_multiplier": 0.25},
        **_options,
    )
