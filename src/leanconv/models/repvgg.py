"""RepVGG: a plain stack of 3x3 convolutions, trained with shortcuts that later disappear.

Ding et al., 2021, arXiv 2101.03697; DingXiaoH/RepVGG.  Each layer is trained as a 3x3 and a 1x1 convolution and, where
shapes agree, an identity, batch norm after each; for deployment the three are one 3x3 convolution with a bias.
"""

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import Classifier, ConvNet, Stem, check_stem, conv_norm
from leanconv.models.zoo import Source, register_model
from leanconv.ops.affine import Affine
from leanconv.ops.geometry import check_groups

#: Layers a stage and factors on the 64, 128, 256 and on the 512 channels of the stages (table 2 and 3).
LAYOUTS: dict[str, tuple[tuple[int, int, int, int], float, float]] = {
    "a0": ((2, 4, 14, 1), 0.75, 2.5),
    "a1": ((2, 4, 14, 1), 1.0, 2.5),
    "a2": ((2, 4, 14, 1), 1.5, 2.75),
    "b0": ((4, 6, 16, 1), 1.0, 2.5),
    "b1": ((4, 6, 16, 1), 2.0, 4.0),
    "b2": ((4, 6, 16, 1), 2.5, 5.0),
    "b3": ((4, 6, 16, 1), 3.0, 5.0),
}


class RepVGGBlock(nn.Module):
    """One layer: three branches summed, or their fusion, then ReLU.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        stride: Stride of the layer.
        groups: Groups of both convolutions.
        deploy: Build the fused form, one convolution with a bias.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, groups: int = 1, deploy: bool = False
    ) -> None:
        super().__init__()
        self.in_channels, self.groups, self.deploy = in_channels, groups, deploy
        self.act = nn.ReLU()
        if deploy:
            self.fused = nn.Conv2d(in_channels, out_channels, 3, stride, 1, groups=groups)
            return
        self.spatial = conv_norm(in_channels, out_channels, 3, stride, groups=groups, activation=None)
        self.pointwise = conv_norm(in_channels, out_channels, 1, stride, groups=groups, activation=None)
        same = stride == 1 and in_channels == out_channels
        self.identity = nn.BatchNorm2d(in_channels) if same else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H/stride, W/stride)``."""
        if self.deploy:
            y = self.fused(x)
        else:
            y = self.spatial(x) + self.pointwise(x)
            if self.identity is not None:
                y = y + self.identity(x)
        result: Tensor = self.act(y)
        return result

    @torch.no_grad()
    def fuse(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the one convolution that the branches are in evaluation mode (section 3.3)."""
        if self.deploy:
            return self.fused.weight, _present(self.fused.bias)
        first, second = (_folded(branch) for branch in (self.spatial, self.pointwise))
        whole = first.plus(second)
        if self.identity is not None:
            whole = whole.plus(Affine.of_norm(self.identity, 2))
        bias = whole.weight.new_zeros(whole.layout.out_channels) if whole.bias is None else whole.bias
        return whole.weight.to(whole.dtype), bias.to(whole.dtype)


def _folded(branch: nn.Module) -> Affine:
    """Return a bias-free convolution and the batch norm after it as one, in evaluation mode."""
    convolution, norm = branch.children()
    assert isinstance(convolution, nn.Conv2d)
    return Affine.of_conv(convolution).then(Affine.of_norm(norm, 2))


def _present(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


class RepVGG(ConvNet):
    """RepVGG of a first layer and four stages at strides 4, 8, 16 and 32 (1, 2, 4 and 8 with the small stem).

    Args:
        layout: ``"a0"`` to ``"a2"`` or ``"b0"`` to ``"b3"``.
        groups: Groups of every second layer, the 3rd to the 27th (2 or 4 in the networks with g in their name).
        depths: Layers a stage instead of the layout's.
        base_width: Channels of the first stage before the layout's factor (64 in the paper); they double each stage.
        deploy: Build the fused form for inference; :meth:`deployed` returns it with the weights.
        stem: ``"imagenet"``, or ``"cifar"`` for images of 32 pixels: stride 1 in the first layer and stage.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``layout`` or ``stem`` is unknown or ``groups`` does not divide the channels.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        layout: str = "a0",
        *,
        groups: int = 1,
        depths: Sequence[int] | None = None,
        base_width: int = 64,
        deploy: bool = False,
        stem: Stem = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        check_stem(stem)
        if layout not in LAYOUTS:
            raise UserError(f"`layout` must be one of {', '.join(LAYOUTS)}, got {layout!r}.")
        published, early, late = LAYOUTS[layout]
        widths = [int(base_width * 2**stage * (late if stage == 3 else early)) for stage in range(4)]
        strides = (2, 2, 2, 2) if stem == "imagenet" else (1, 2, 2, 2)
        channels = min(base_width, widths[0])
        first = RepVGGBlock(in_channels, channels, strides[0], deploy=deploy)
        stages, layer = [], 0
        for depth, width, stride in zip(published if depths is None else depths, widths, strides, strict=True):
            blocks = []
            for index in range(depth):
                layer += 1
                own = groups if layer % 2 == 0 and layer <= 26 else 1
                check_groups(own, in_channels=channels, out_channels=width)
                blocks.append(RepVGGBlock(channels, width, stride if index == 0 else 1, groups=own, deploy=deploy))
                channels = width
            stages.append(nn.Sequential(*blocks))
        super().__init__(first, stages, Classifier(channels, num_classes), features_only=features_only)

    @torch.no_grad()
    def deployed(self) -> Self:
        """Return the fused network for inference; its outputs are those of this one in evaluation mode.

        The copy is in evaluation mode and does not share weights.  ``create_model`` builds it from its ``config``.
        """
        network = copy.deepcopy(self).eval()
        for parent in list(network.modules()):
            for name, block in list(parent.named_children()):
                if isinstance(block, RepVGGBlock) and not block.deploy:
                    setattr(parent, name, _deployed(block))
        config = getattr(self, "config", None)
        if config is not None:
            network.config = {**config, "kwargs": {**config["kwargs"], "deploy": True}}
        return network


def _deployed(block: RepVGGBlock) -> RepVGGBlock:
    """Return the fused form of a block, with its weights."""
    convolution = block.spatial[0]
    assert isinstance(convolution, nn.Conv2d)
    fused = RepVGGBlock(
        convolution.in_channels,
        convolution.out_channels,
        convolution.stride[0],
        groups=convolution.groups,
        deploy=True,
    ).to(convolution.weight)
    weight, bias = block.fuse()
    fused.fused.weight.copy_(weight)
    _present(fused.fused.bias).copy_(bias)
    return fused.eval()


_SOURCE = Source(
    "Ding et al. 2021, arXiv 2101.03697; DingXiaoH/RepVGG",
    certain="all; timm's networks give the same outputs",
    chosen="the small stem",
)
#: Parameters and MACs of the deployed networks, as tables 4 and 5 print them.
_PUBLISHED = {
    "a0": "8.30 M / 1.4 G",
    "a1": "12.78 M / 2.4 G",
    "a2": "25.49 M / 5.1 G",
    "b0": "14.33 M / 3.1 G",
    "b1": "51.82 M / 11.8 G",
    "b1g2": "41.36 M / 8.8 G",
    "b1g4": "36.12 M / 7.3 G",
    "b2": "80.31 M / 18.4 G",
    "b2g2": "",
    "b2g4": "55.77 M / 11.3 G",
    "b3": "110.96 M / 26.2 G",
    "b3g2": "",
    "b3g4": "75.62 M / 16.1 G",
}
for _name, _published in _PUBLISHED.items():
    register_model(
        f"repvgg_{_name}",
        RepVGG,
        _SOURCE,
        published=_published,
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"base_width": 8, "depths": (1, 2, 2, 1)},
        layout=_name[:2],
        groups=int(_name[3:] or 1),
    )
