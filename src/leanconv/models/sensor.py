"""A small network of six 1-D convolutions for signals of sensors, with a choice of operator.

*Our own choice*, as a baseline for wearables: three stages of two layers (32, 64 and 128 channels, kernel 5, strides
1, 2 and 2), batch norm and ReLU after each.  The first layer is a plain convolution, as sensors have few channels; the
other five are of one kind.  By default it reads windows of 128 samples of nine channels, the customary form of
accelerometer and gyroscope data.
"""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import Classifier, ConvNet
from leanconv.models.zoo import Source, register_model
from leanconv.ops.axial import AxialConv1d
from leanconv.ops.dilated import DilatedConv1d
from leanconv.ops.separable import DepthwiseSeparableConv1d
from leanconv.ops.shuffle import GroupedShuffleConv1d

#: What the layers after the first are: plain convolutions; dilated by two; in four groups, then shuffled; depthwise
#: separable; or depthwise with a residual (a residual axial convolution of one axis), then pointwise.
Operator = Literal["plain", "dilated", "grouped", "separable", "axial"]


def _plain(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Module:
    return nn.Conv1d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)


def _dilated(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Module:
    return DilatedConv1d(in_channels, out_channels, kernel_size, stride, bias=False)


def _grouped(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Module:
    return GroupedShuffleConv1d(in_channels, out_channels, kernel_size, stride, "same", groups=4, bias=False)


def _separable(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Module:
    return DepthwiseSeparableConv1d(in_channels, out_channels, kernel_size, stride, "same", bias=False)


def _axial(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Module:
    return nn.Sequential(
        AxialConv1d(
            in_channels, in_channels, kernel_size, stride, "same", groups=in_channels, bias=False, residual=True
        ),
        nn.Conv1d(in_channels, out_channels, 1, bias=False),
    )


_LAYERS: dict[Operator, Callable[[int, int, int, int], nn.Module]] = {
    "plain": _plain,
    "dilated": _dilated,
    "grouped": _grouped,
    "separable": _separable,
    "axial": _axial,
}


class SensorPair(nn.Module):
    """Two convolutions with batch norm and ReLU, and a shortcut around them if wanted.

    Args:
        first: The first convolution, which may stride and widen.
        second: The second, which keeps the shape.
        out_channels: Channels written.
        shortcut: Added before the last ReLU.
    """

    def __init__(self, first: nn.Module, second: nn.Module, out_channels: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.first = nn.Sequential(first, nn.BatchNorm1d(out_channels), nn.ReLU())
        self.second = nn.Sequential(second, nn.BatchNorm1d(out_channels))
        self.shortcut = shortcut
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, L)`` to ``(N, out_channels, L/stride)``."""
        y = self.second(self.first(x))
        result: Tensor = self.act(y if self.shortcut is None else y + self.shortcut(x))
        return result


class SensorNet(ConvNet):
    """Six convolutions in three stages at strides 1, 2 and 4, pooling over time, and a classifier.

    Args:
        operator: See :data:`Operator`.
        residual: Whether each stage adds its input, through a strided 1x1 convolution.
        base_width: Channels of the first stage; they double each stage.  A multiple of 4 with ``"grouped"``.
        kernel_size: Taps of the convolutions, odd.
        dropout: Probability of zeroing a pooled feature while training.
        num_classes: Outputs.
        in_channels: Channels of the signal.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``operator`` is unknown, ``kernel_size`` even, ``dropout`` out of range or ``base_width`` does not
            divide into groups.

    Shapes:
        ``(N, in_channels, L)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        operator: Operator = "plain",
        *,
        residual: bool = False,
        base_width: int = 32,
        kernel_size: int = 5,
        dropout: float = 0.0,
        num_classes: int = 6,
        in_channels: int = 9,
        features_only: bool = False,
    ) -> None:
        if operator not in get_args(Operator):
            raise UserError(f"`operator` must be one of {', '.join(get_args(Operator))}, got {operator!r}.")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(f"`kernel_size` must be odd, got {kernel_size}; {max(1, kernel_size + 1)} would work.")
        layer = _LAYERS[operator]
        channels, stages = in_channels, []
        for stage, stride in enumerate((1, 2, 2)):
            width = base_width * 2**stage
            shortcut = None
            if residual:
                shortcut = nn.Sequential(nn.Conv1d(channels, width, 1, stride, bias=False), nn.BatchNorm1d(width))
            make = _plain if stage == 0 else layer
            first, second = make(channels, width, kernel_size, stride), layer(width, width, kernel_size, 1)
            stages.append(SensorPair(first, second, width, shortcut))
            channels = width
        super().__init__(
            nn.Identity(), stages, Classifier(channels, num_classes, dropout, dims=1), features_only=features_only
        )


for _operator in _LAYERS:
    for _residual in (False, True):
        register_model(
            f"sensor6_{_operator}" + ("_residual" if _residual else ""),
            SensorNet,
            Source("none: our own baseline", certain="nothing; it follows no paper", chosen="all of it"),
            input_size=(9, 128),
            num_classes=6,
            small={"base_width": 8},
            operator=_operator,
            residual=_residual,
        )
