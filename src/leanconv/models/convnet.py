"""The frame every network here shares: a stem, stages that lower the resolution, and a head."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.ops.hooks import has_hooks
from leanconv.ops.kernels import apply_conv_norm

#: How a network designed for photos begins: as published, or without early striding for 32-pixel images.
Stem = Literal["imagenet", "cifar"]


def check_stem(stem: str) -> None:
    """Check the name of a stem.

    Raises:
        UserError: It is not one of :data:`Stem`.
    """
    if stem not in ("imagenet", "cifar"):
        raise UserError(f"`stem` must be 'imagenet' or 'cifar', got {stem!r}.")


def check_width_multiplier(width_multiplier: float) -> None:
    """Check a factor on all channels of a network; as names give it in percent, that mistake is met.

    Raises:
        UserError: It is not above 0 and at most 10.
    """
    if not 0 < width_multiplier <= 10:
        near = width_multiplier / 100 if 10 < width_multiplier <= 1000 else 1.0
        raise UserError(
            f"`width_multiplier` must be above 0 and at most 10, got {width_multiplier}; {near:g} would work."
        )


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and perhaps an activation, fused in training where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the modules in order."""
        if self.training and 2 <= len(self) <= 3:
            return apply_conv_norm(x, *self)
        for module in self:
            x = module(x)
        return x


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int] = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
) -> ConvNorm:
    """Return a centred, bias-free convolution, batch norm and (unless ``None``) an activation."""
    kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    padding = (kernel[0] // 2, kernel[1] // 2)
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return ConvNorm(*layers, *([activation()] if activation else []))


def join(branch: nn.Sequential, x: Tensor, shortcut: Tensor, activation: nn.Module) -> Tensor:
    """Return ``activation(branch(x) + shortcut)`` for a branch of convolution and batch norm."""
    if branch.training and len(branch) == 2 and not has_hooks(branch):
        return apply_conv_norm(x, branch[0], branch[1], activation, added=shortcut)
    out: Tensor = activation(branch(x) + shortcut)
    return out


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the usual shortcut: identity where shapes agree, else a strided 1x1 convolution and batch norm."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_norm(in_channels, out_channels, 1, stride, activation=None)


def make_stages(
    block: Callable[[int, int, int], nn.Module],
    in_channels: int,
    depths: Sequence[int],
    planes: Sequence[int],
    strides: Sequence[int],
) -> list[nn.Sequential]:
    """Return one stage of blocks for each depth; the first block of a stage carries its stride.

    Args:
        block: Called as ``block(in_channels, planes, stride)``; its attribute ``out_channels`` says what it writes.
        in_channels: Channels of the stem.
        depths: Blocks a stage.
        planes: Inner width a stage.
        strides: Stride a stage.
    """
    stages = []
    for depth, width, stride in zip(depths, planes, strides, strict=True):
        blocks: list[nn.Module] = []
        for index in range(depth):
            blocks.append(block(in_channels, width, stride if index == 0 else 1))
            in_channels = int(getattr(blocks[-1], "out_channels"))  # noqa: B009 - nn.Module types any attribute
        stages.append(nn.Sequential(*blocks))
    return stages


def make_dropout(probability: float) -> nn.Module:
    """Return the layer that zeroes that share of its input while training.

    Raises:
        UserError: ``probability`` is not in [0, 1).
    """
    if not 0 <= probability < 1:
        raise UserError(f"`dropout` must be at least 0 and below 1, got {probability}; 0.2 would work.")
    return nn.Dropout(probability) if probability else nn.Identity()


def he_fan_out(network: nn.Module) -> None:
    """Draw the weights of every 2-D convolution from N(0, 2 / fan-out), as published ImageNet networks usually do.

    He et al., 2015, arXiv 1502.01852, equation 14; the fan-out is ``k² out_channels``, whatever the groups.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Classifier(nn.Module):
    """Global average pooling, dropout and one linear layer.

    Args:
        in_channels: Channels of the last stage.
        num_classes: Outputs.
        dropout: Probability of zeroing a pooled feature while training.
        bias: Whether the linear layer has one.
        dims: Axes pooled: 2 for images, 1 for signals.

    Raises:
        UserError: ``dropout`` is not in [0, 1).
    """

    def __init__(
        self, in_channels: int, num_classes: int, dropout: float = 0.0, bias: bool = True, *, dims: Literal[1, 2] = 2
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1) if dims == 2 else nn.AdaptiveAvgPool1d(1)
        self.dropout = make_dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` or ``(N, C, L)`` to ``(N, num_classes)``."""
        logits: Tensor = self.fc(self.dropout(self.pool(x).flatten(1)))
        return logits


class ConvNet(nn.Module):
    """Stem, stages, head.

    Args:
        stem: From the image to the first stage.
        stages: Each may lower the resolution.
        head: From the last stage's output to the result; unused with ``features_only``.
        features_only: Return the list of stage outputs instead, for detectors and segmenters.

    Attributes:
        input_size: Channels, height and width of the images it was designed for (channels and length of signals).
        config: Name and arguments that make ``create_model`` build it again.
    """

    input_size: tuple[int, ...]
    config: dict[str, Any]

    def __init__(
        self, stem: nn.Module, stages: Iterable[nn.Module], head: nn.Module, *, features_only: bool = False
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.features_only = features_only
        if not features_only:
            self.head = head

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Map images ``(N, in_channels, H, W)`` to logits, or to the list of stage outputs, finest first."""
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features if self.features_only else self.head(x)
