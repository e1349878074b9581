"""Residual networks with squeeze and excitation, the usual measure of other channel attention.

Hu, Shen, Albanie, Sun and Wu, 2018, arXiv 1709.01507, figure 3: the attention stands after the last batch norm of a
block, before the shortcut is added.
"""

from functools import partial

from leanconv.models.convnet import Stem, he_fan_out
from leanconv.models.imagenet_resnet import LAYOUTS, layout
from leanconv.models.resnet import ResNet
from leanconv.models.zoo import Source, register_model
from leanconv.ops.squeeze_excitation import SqueezeExcitation


class SEResNet(ResNet):
    """ResNet with squeeze and excitation in every block.

    Args:
        depth: 18, 34, 50, 101 or 152.
        reduction: See :class:`~leanconv.ops.squeeze_excitation.SqueezeExcitation` (16 in the paper).
        attention_bias: Whether the attention's linear layers have biases, as the paper's do.
        base_width: Channels of the stem and planes of the first stage.
        stem: As in :class:`~leanconv.models.imagenet_resnet.ImageNetResNet`.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``depth`` or ``stem`` is unknown, or ``reduction`` below 1.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        reduction: float = 16,
        attention_bias: bool = True,
        base_width: int = 64,
        stem: Stem = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        block, depths = layout(depth)
        super().__init__(
            partial(block, attention=partial(SqueezeExcitation, reduction=reduction, bias=attention_bias)),
            depths,
            base_width=base_width,
            stem=stem,
            num_classes=num_classes,
            in_channels=in_channels,
            features_only=features_only,
        )
        he_fan_out(self)


_SOURCE = Source(
    "Hu et al. 2018, arXiv 1709.01507",
    certain="attention, its place and reduction 16",
    chosen="stride on the 3x3 convolution of a bottleneck, as in torchvision's ResNet",
)
for _depth in LAYOUTS:
    register_model(
        f"se_resnet{_depth}",
        SEResNet,
        _SOURCE,
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"base_width": 4},
        depth=_depth,
    )
