"""SqueezeNext-style networks.

Gholami et al., 2018, arXiv 1803.10615.  The 26- to 152-layer networks here are *our choice* of the SqueezeNext that
residual axial networks (arXiv 2301.04631) are compared with; that paper does not define its own.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import Classifier, ConvNet, conv_norm, make_stages, projection
from leanconv.models.ran import DEPTHS
from leanconv.models.zoo import Source, register_model


class ResidualSqueezeBlock(nn.Module):
    """1x1 (strided), 1x1, 3x1, 1x3 and 1x1 convolutions and a projection shortcut.

    Args:
        in_channels: Channels read.
        planes: Width of the stage, even; the block writes twice as many.
        stride: Stride of the first 1x1 convolution.
    """

    expansion = 2

    def __init__(self, in_channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.out_channels = planes * self.expansion
        self.body = nn.Sequential(
            conv_norm(in_channels, planes, 1, stride),
            conv_norm(planes, planes),
            conv_norm(planes, planes // 2, (3, 1)),
            conv_norm(planes // 2, planes // 2, (1, 3)),
            conv_norm(planes // 2, self.out_channels, activation=None),
        )
        self.act = nn.ReLU()
        self.shortcut = projection(in_channels, self.out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, 2 planes, H/stride, W/stride)``."""
        out: Tensor = self.act(self.body(x) + self.shortcut(x))
        return out


class ResidualSqueezeNext(ConvNet):
    """SqueezeNext blocks on the frame of the residual axial networks.

    Args:
        depths: Blocks a stage.
        base_width: Channels of the stem and planes of the first stage, even; planes double each stage.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``base_width`` is odd.

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
        if base_width % 2:
            raise UserError(
                f"`base_width` must be even for SqueezeNext blocks, got {base_width}; {base_width + 1} would work."
            )
        planes = [base_width * 2**stage for stage in range(4)]
        super().__init__(
            conv_norm(in_channels, base_width, 3),
            make_stages(ResidualSqueezeBlock, base_width, depths, planes, (1, 2, 2, 2)),
            Classifier(planes[-1] * ResidualSqueezeBlock.expansion, num_classes),
            features_only=features_only,
        )


_BASELINE = Source(
    "Gholami et al. 2018, arXiv 1803.10615, as a baseline of arXiv 2301.04631",
    certain="only the reductions RAN claims against it (34 % / 26 % of parameters / MACs)",
    chosen="the whole block: of many candidates the closest to those reductions",
)
for _depth, _blocks in DEPTHS.items():
    register_model(
        f"squeezenext{_depth}_cifar", ResidualSqueezeNext, _BASELINE, small={"base_width": 4}, depths=_blocks
    )
