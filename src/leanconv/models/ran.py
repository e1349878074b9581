"""Deep residual axial networks (RAN).

Nazmul Shahadat and Anthony S. Maida, 2023, arXiv 2301.04631.  A bottleneck ResNet in which each 3x3 convolution
becomes two depthwise 1-D convolutions, height then width, each inside its own identity residual.  Widths, depths,
expansion 2 and the absence of further pointwise convolutions follow from the published sizes and reductions;
kernel 3, batch norm after each 1-D convolution, the residual added after it, no activation between the axes and
striding by average pooling are our reading, taken from the authors' related code.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from leanconv.models.convnet import Classifier, ConvNet, conv_norm, join, make_stages, projection
from leanconv.models.zoo import Source, register_model
from leanconv.ops.axial import AxialConv2d
from leanconv.ops.hooks import has_hooks
from leanconv.ops.kernels import arranged

#: Blocks a stage of the 26- to 152-layer networks; the comparison networks of the paper share them.
DEPTHS: dict[int, tuple[int, int, int, int]] = {
    26: (1, 2, 4, 1),
    35: (2, 3, 4, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
SOURCE = Source(
    "Shahadat and Maida 2023, arXiv 2301.04631",
    certain="widths, depths, expansion 2, depthwise pair, no further pointwise convolution",
    chosen="kernel 3, batch norm inside each residual, no activation between the axes, striding by average pooling",
)
FULL_SOURCE = Source(
    "Shahadat and Maida 2023, arXiv 2301.04631v1",
    certain="full 1-D convolutions, a residual around each; 49 % fewer parameters than ResNet-26",
    chosen=SOURCE.chosen,
)


class RANBlock(nn.Module):
    """Pointwise in, residual axial pair, average pooling where strided, pointwise out, shortcut.

    Args:
        in_channels: Channels read.
        planes: Channels of the axial pair; the block writes twice as many.
        stride: 1, or the side of the average pooling after the pair.
        kernel_size: Taps of the 1-D convolutions, odd.
        depthwise: Depthwise 1-D convolutions (second version of the paper), else full ones (first version).
        inner_residual: Whether each 1-D convolution has its own residual; without is the paper's ablation.
    """

    expansion = 2

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        *,
        kernel_size: int = 3,
        depthwise: bool = True,
        inner_residual: bool = True,
    ) -> None:
        super().__init__()
        self.out_channels = planes * self.expansion
        self.reduce = conv_norm(in_channels, planes)
        self.axial = AxialConv2d(
            planes,
            planes,
            kernel_size,
            padding="same",
            groups=planes if depthwise else 1,
            bias=False,
            residual=inner_residual,
            norm_layer=nn.BatchNorm2d,
        )
        # Rounding up lets odd sizes meet the strided shortcut; partial windows average what they hold.
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.act = nn.ReLU()
        self.expand = conv_norm(planes, self.out_channels, activation=None)
        self.shortcut = projection(in_channels, self.out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, 2 planes, H/stride, W/stride)``."""
        y = self.reduce(x)
        plain = isinstance(self.axial, AxialConv2d) and isinstance(self.pool, nn.Identity) and not has_hooks(self.axial)
        y = self.axial(y, self.act) if self.training and plain else self.act(self.pool(self.axial(y)))
        return join(self.expand, y, self.shortcut(x), self.act)


class RAN(ConvNet):
    """Residual axial network for small images: 3x3 stem without pooling, four stages at strides 1, 2, 2, 2.

    Args:
        depths: Blocks a stage.
        base_width: Channels of the stem and planes of the first stage (120 in the paper); planes double each stage.
        num_classes: Outputs.
        in_channels: Channels of the images.
        kernel_size: Taps of the axial convolutions.
        depthwise: See :class:`RANBlock`.
        inner_residual: See :class:`RANBlock`.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``; height and width at least 8.
    """

    def __init__(
        self,
        depths: Sequence[int] = DEPTHS[26],
        *,
        base_width: int = 120,
        num_classes: int = 10,
        in_channels: int = 3,
        kernel_size: int = 3,
        depthwise: bool = True,
        inner_residual: bool = True,
        features_only: bool = False,
    ) -> None:
        def block(width: int, planes: int, stride: int) -> RANBlock:
            return RANBlock(
                width,
                planes,
                stride,
                kernel_size=kernel_size,
                depthwise=depthwise,
                inner_residual=inner_residual,
            )

        planes = [base_width * 2**stage for stage in range(4)]
        super().__init__(
            conv_norm(in_channels, base_width, 3),
            make_stages(block, base_width, depths, planes, (1, 2, 2, 2)),
            Classifier(planes[-1] * RANBlock.expansion, num_classes),
            features_only=features_only,
        )
        self.base_width = base_width

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Map images as :class:`~leanconv.models.convnet.ConvNet` does."""
        return super().forward(arranged(x, self.base_width) if self.training else x)


for _depth, _blocks in DEPTHS.items():
    for _prefix, _residual in (("ran", True), ("axial", False)):
        register_model(
            f"{_prefix}{_depth}",
            RAN,
            SOURCE,
            published="77 % / 75 % fewer than ResNet" if _residual else "",
            small={"base_width": 4},
            depths=_blocks,
            inner_residual=_residual,
        )
        register_model(
            f"{_prefix}{_depth}_full",
            RAN,
            FULL_SOURCE,
            small={"base_width": 4},
            depths=_blocks,
            depthwise=False,
            inner_residual=_residual,
        )
