"""MobileNet-style networks.

The 26- to 152-layer networks here are *our choice* of the MobileNet that residual axial networks (arXiv 2301.04631)
are compared with; that paper does not define its own.  Of many candidates these come closest to the claimed
reductions (75 % of parameters, 67 % of MACs).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from leanconv.models.convnet import Classifier, ConvNet, conv_norm, make_stages, projection
from leanconv.models.ran import DEPTHS
from leanconv.models.zoo import Source, register_model


class ResidualMobileBlock(nn.Module):
    """Strided 1x1 to twice the planes, depthwise 3x3, 1x1 to four times the planes, projection shortcut.

    Args:
        in_channels: Channels read.
        planes: Width of the stage; the block writes four times as many.
        stride: Stride of the first 1x1 convolution.
    """

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        inner = 2 * planes
        self.out_channels = planes * self.expansion
        self.reduce = conv_norm(in_channels, inner, 1, stride)
        self.depthwise = conv_norm(inner, inner, 3, groups=inner)
        self.expand = conv_norm(inner, self.out_channels, activation=None)
        self.act = nn.ReLU()
        self.shortcut = projection(in_channels, self.out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, 4 planes, H/stride, W/stride)``."""
        y = self.expand(self.depthwise(self.reduce(x)))
        out: Tensor = self.act(y + self.shortcut(x))
        return out


class ResidualMobileNet(ConvNet):
    """Depthwise separable bottleneck network on the frame of the residual axial networks.

    Args:
        depths: Blocks a stage.
        base_width: Channels of the stem and planes of the first stage; planes double each stage.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
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
        planes = [base_width * 2**stage for stage in range(4)]
        super().__init__(
            conv_norm(in_channels, base_width, 3),
            make_stages(ResidualMobileBlock, base_width, depths, planes, (1, 2, 2, 2)),
            Classifier(planes[-1] * ResidualMobileBlock.expansion, num_classes),
            features_only=features_only,
        )


_BASELINE = Source(
    "Howard et al. 2017, arXiv 1704.04861, as a baseline of arXiv 2301.04631",
    certain="only the reductions RAN claims against it (75 % / 67 % of parameters / MACs)",
    chosen="the whole block: of many candidates the closest to those reductions",
)
for _depth, _blocks in DEPTHS.items():
    register_model(f"mobilenet{_depth}_cifar", ResidualMobileNet, _BASELINE, small={"base_width": 4}, depths=_blocks)
