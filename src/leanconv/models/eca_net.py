"""ECA-Nets: ResNet and MobileNetV2 with efficient channel attention in every block.

Wang, Wu, Zhu, Li, Zuo and Hu, 2020, arXiv 1910.03151, and its authors' code: the attention stands after the last batch
norm of a block, before the shortcut is added (if one is).  The kernel sizes of the registered networks are those of
the released weights, one a stage; they were tuned after the paper's adaptive formula, which gives others.
"""

from collections.abc import Sequence
from functools import partial

from leanconv.errors import UserError
from leanconv.models.convnet import Stem, he_fan_out
from leanconv.models.imagenet_resnet import layout
from leanconv.models.mobilenet_v2 import STAGES, InvertedResidual, InvertedResidualNet, Row
from leanconv.models.resnet import ResNet
from leanconv.models.zoo import Source, register_model
from leanconv.ops.eca import ECA, ECAKernel

#: Taps for all blocks, for each stage, or ``"adaptive"``.
ECAKernels = ECAKernel | Sequence[int]
#: Taps a stage of the released ResNets.
RESNET_KERNELS: dict[int, tuple[int, int, int, int]] = {
    18: (3, 5, 7, 7),
    34: (3, 3, 5, 7),
    50: (3, 5, 5, 7),
    101: (3, 3, 5, 7),
    152: (3, 3, 5, 7),
}
#: Taps a row of the released MobileNetV2: one below 96 channels, three from there on.
MOBILENET_V2_KERNELS = (1, 1, 1, 1, 3, 3, 3)


def _kernel_at(kernel_size: ECAKernels, stages: Sequence[int]) -> dict[int, ECAKernel]:
    """Return the taps of each stage, the stages being known by their channels.

    Raises:
        UserError: There is not one for each stage.
    """
    if isinstance(kernel_size, int | float | str):
        return dict.fromkeys(stages, kernel_size)
    if len(kernel_size) != len(stages):
        raise UserError(
            f"`kernel_size` must be one odd number, {len(stages)} of them (one a stage) or 'adaptive', "
            f"got {kernel_size!r}; 3 would work."
        )
    return dict(zip(stages, kernel_size, strict=True))


class ECAResNet(ResNet):
    """ResNet with efficient channel attention on the channels each block writes.

    Args:
        depth: 18, 34, 50, 101 or 152.
        kernel_size: Taps along the channels, odd: one number for all blocks, one for each of the four stages, or
            ``"adaptive"`` for the paper's formula.
        base_width: Channels of the stem and planes of the first stage.
        stem: As in :class:`~leanconv.models.imagenet_resnet.ImageNetResNet`.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``depth`` or ``stem`` is unknown, or a kernel size is even.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        kernel_size: ECAKernels = 3,
        base_width: int = 64,
        stem: Stem = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        block, depths = layout(depth)
        kernel_at = _kernel_at(kernel_size, [base_width * block.expansion * 2**stage for stage in range(len(depths))])
        super().__init__(
            partial(block, attention=lambda channels: ECA(channels, kernel_at[channels])),
            depths,
            base_width=base_width,
            stem=stem,
            num_classes=num_classes,
            in_channels=in_channels,
            features_only=features_only,
        )
        he_fan_out(self)


class ECAMobileNetV2(InvertedResidualNet):
    """MobileNetV2 with efficient channel attention on the channels each block writes.

    Args:
        kernel_size: Taps along the channels, odd: one number for all blocks, one for each of the seven rows of the
            table, or ``"adaptive"`` for the paper's formula.
        width_multiplier: See :class:`~leanconv.models.mobilenet_v2.InvertedResidualNet`, also for what follows.
        stem: See there.
        dropout: See there (0.25 in the authors' code).
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: A kernel size is even, ``width_multiplier`` or ``dropout`` is out of range or ``stem`` unknown.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        *,
        kernel_size: ECAKernels = MOBILENET_V2_KERNELS,
        width_multiplier: float = 1.0,
        stem: Stem = "imagenet",
        dropout: float = 0.25,
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        kernel_at = _kernel_at(kernel_size, [row.channels for rows in STAGES for row in rows])

        def block(row: Row, before: int, after: int, stride: int) -> InvertedResidual:
            attention = partial(ECA, kernel_size=kernel_at[row.channels])
            return InvertedResidual(before, after, stride, row.expansion, attention=attention)

        super().__init__(
            block,
            width_multiplier=width_multiplier,
            stem=stem,
            dropout=dropout,
            num_classes=num_classes,
            in_channels=in_channels,
            features_only=features_only,
        )


_CERTAIN = "all; kernel sizes are those of the released weights"
#: As printed, where "M" and "G" are binary and operations include batch norm.
_PUBLISHED = {
    18: "11.15 M / 1.70 G",
    34: "20.79 M / 3.43 G",
    50: "24.37 M / 3.86 G",
    101: "42.49 M / 7.35 G",
    152: "57.41 M / 10.83 G",
}
for _depth, _kernels in RESNET_KERNELS.items():
    register_model(
        f"eca_resnet{_depth}",
        ECAResNet,
        Source("Wang et al. 2020, arXiv 1910.03151, and BangguWu/ECANet", certain=_CERTAIN),
        published=_PUBLISHED[_depth],
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"base_width": 4},
        depth=_depth,
        kernel_size=_kernels,
    )
register_model(
    "eca_mobilenet_v2",
    ECAMobileNetV2,
    Source(
        "Wang et al. 2020, arXiv 1910.03151, and BangguWu/ECANet",
        certain=_CERTAIN,
        chosen="other widths are rounded as in MobileNetV2, where the authors' code rounds down",
    ),
    published="3.34 M / 319.9 M",
    input_size=(3, 224, 224),
    num_classes=1000,
    small={"width_multiplier": 0.1},
)
