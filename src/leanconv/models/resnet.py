"""Residual networks: the blocks and frame they share, and the networks for small images.

He, Zhang, Ren and Sun, 2015, arXiv 1512.03385.  Two families are registered here: the paper's own CIFAR networks
(section 4.2: three stages of basic blocks, parameter-free shortcuts), and the four-stage bottleneck networks of base
width 120 that residual axial networks are measured against (arXiv 2301.04631).
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import Classifier, ConvNet, Stem, check_stem, conv_norm, make_stages, projection
from leanconv.models.ran import DEPTHS
from leanconv.models.zoo import Source, register_model


class PaddedShortcut(nn.Module):
    """Parameter-free shortcut ("option A"): every other sample, zero channels on both sides.

    He et al., section 3.3 and 4.2.  How the zero channels are split is not said there; half on each side follows
    the released weights this package reads.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        stride: Step of the subsampling.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        missing = out_channels - in_channels
        self.before, self.after, self.stride = missing // 2, missing - missing // 2, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, out_channels, ceil(H/stride), ceil(W/stride))``."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., figure 5 left).

    Args:
        in_channels: Channels read.
        planes: Channels written.
        stride: Stride of the first convolution.
        shortcut: Called as ``shortcut(in_channels, out_channels, stride)`` where shapes differ.
        attention: Called with the channels written; its module acts just before the shortcut is added.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        *,
        shortcut: Callable[[int, int, int], nn.Module] = projection,
        attention: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.out_channels = planes
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.attention = attention(planes) if attention else nn.Identity()
        self.act = nn.ReLU()
        changes = stride != 1 or in_channels != planes
        self.downsample = shortcut(in_channels, planes, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, planes, H/stride, W/stride)``."""
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        out: Tensor = self.act(self.attention(y) + self.downsample(x))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolutions and a projection shortcut (figure 5 right).

    Args:
        in_channels: Channels read.
        planes: Channels of the 3x3 convolution; the block writes four times as many.
        stride: Stride of the 3x3 convolution.
        attention: As in :class:`BasicBlock`.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        *,
        attention: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.out_channels = planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, self.out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.out_channels)
        self.attention = attention(self.out_channels) if attention else nn.Identity()
        self.act = nn.ReLU()
        self.downsample = projection(in_channels, self.out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, 4 planes, H/stride, W/stride)``."""
        y = self.act(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.act(self.bn2(self.conv2(y)))))
        out: Tensor = self.act(self.attention(y) + self.downsample(x))
        return out


class ResNet(ConvNet):
    """Residual network whose first stage keeps the stem's resolution; the others halve it.

    Weights with the customary names (``conv1``, ``bn1``, ``layer1.0.conv1``, …, ``fc`` or ``linear``; attention as
    ``eca`` or ``se``) load as they are.

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`.
        depths: Blocks a stage.
        base_width: Channels of the stem and planes of the first stage; planes double each stage.
        stem: ``"cifar"``, one 3x3 convolution, or ``"imagenet"``, 7x7 and 3x3 max-pooling, both of stride 2.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``stem`` is unknown.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        depths: Sequence[int],
        *,
        base_width: int,
        stem: Stem = "cifar",
        num_classes: int = 10,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        check_stem(stem)
        first: nn.Sequential = conv_norm(in_channels, base_width, 3)
        if stem == "imagenet":
            first = nn.Sequential(*conv_norm(in_channels, base_width, 7, 2), nn.MaxPool2d(3, 2, 1))
        planes = [base_width * 2**stage for stage in range(len(depths))]
        stages = make_stages(block, base_width, depths, planes, (1,) + (2,) * (len(depths) - 1))
        super().__init__(
            first,
            stages,
            Classifier(stages[-1][-1].out_channels, num_classes),  # type: ignore[arg-type]
            features_only=features_only,
        )
        self.register_load_state_dict_pre_hook(_rename_customary_keys)  # type: ignore[no-untyped-call]


_CUSTOMARY = (
    (re.compile(r"^conv1\."), "stem.0."),
    (re.compile(r"^bn1\."), "stem.1."),
    (re.compile(r"^(?:fc|linear)\."), "head.fc."),
    (re.compile(r"\.(?:eca|se)\."), ".attention."),
)


def _rename_customary_keys(_module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename, in place, keys of other implementations' residual networks to the ones used here."""
    for key in list(state_dict):
        if not key.startswith(prefix):
            continue
        name = key.removeprefix(prefix)
        for pattern, replacement in _CUSTOMARY:
            name = pattern.sub(replacement, name)
        name = re.sub(r"^layer(\d+)\.", lambda match: f"stages.{int(match[1]) - 1}.", name)
        if prefix + name != key:
            state_dict[prefix + name] = state_dict.pop(key)


def _padded_basic_block(in_channels: int, planes: int, stride: int) -> BasicBlock:
    return BasicBlock(in_channels, planes, stride, shortcut=PaddedShortcut)


class CifarResNet(ResNet):
    """The CIFAR networks of He et al., section 4.2: three stages of basic blocks, option A shortcuts.

    Weights start as in He et al., 2015, arXiv 1502.01852.

    Args:
        depth: Layers, ``6 n + 2``.
        depths: Blocks a stage, where they shall not all be ``n``.
        base_width: Channels of the first stage (16 in the paper).
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``depth`` is not ``6 n + 2``.
    """

    def __init__(
        self,
        depth: int,
        *,
        depths: Sequence[int] | None = None,
        base_width: int = 16,
        num_classes: int = 10,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        if depth < 8 or depth % 6 != 2:
            raise UserError(f"`depth` must be 6 n + 2, got {depth}; {max(8, depth // 6 * 6 + 2)} would work.")
        super().__init__(
            _padded_basic_block,
            depths or ((depth - 2) // 6,) * 3,
            base_width=base_width,
            num_classes=num_classes,
            in_channels=in_channels,
            features_only=features_only,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)


class BottleneckCifarResNet(ResNet):
    """The bottleneck ResNets that residual axial networks are compared with (arXiv 2301.04631).

    Its sizes at ``base_width=120`` reproduce the eleven published ones; wide ResNet-26-k is ``base_width=120 * k``.

    Args:
        depths: Blocks a stage.
        base_width: Channels of the stem and planes of the first stage.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.
    """

    def __init__(
        self,
        depths: Sequence[int] = DEPTHS[26],
        *,
        base_width: int = 120,
        num_classes: int = 10,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        super().__init__(
            Bottleneck,
            depths,
            base_width=base_width,
            num_classes=num_classes,
            in_channels=in_channels,
            features_only=features_only,
        )


_HE = Source(
    "He et al. 2015, arXiv 1512.03385, section 4.2",
    certain="everything but the split of the padded channels",
    chosen="half of the padded channels on each side, as the released weights have it",
)
for _depth, _published in {20: "0.27 M", 32: "0.46 M", 44: "0.66 M", 56: "0.85 M", 110: "1.7 M"}.items():
    register_model(
        f"resnet{_depth}_cifar", CifarResNet, _HE, published=_published, small={"base_width": 4}, depth=_depth
    )
_BASELINE = Source(
    "He et al. 2015, arXiv 1512.03385; widths of arXiv 2301.04631",
    certain="all: eleven published sizes are reproduced",
)
_PUBLISHED = {26: "41 M / 2.6 G", 35: "58 M / 3.3 G", 50: "83 M / 4.6 G", 101: "149 M / 8.8 G", 152: "204 M / 13.1 G"}
for _depth, _blocks in DEPTHS.items():
    register_model(
        f"resnet{_depth}_cifar",
        BottleneckCifarResNet,
        _BASELINE,
        published=_PUBLISHED[_depth],
        small={"base_width": 4},
        depths=_blocks,
    )
