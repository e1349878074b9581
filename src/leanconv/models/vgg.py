"""VGG networks: 3x3 convolutions and max-pooling in turn.

Simonyan and Zisserman, 2014, arXiv 1409.1556, configurations D and E.  The form for 32-pixel images, with batch norm
and one linear layer, is the customary one that later papers mean by "VGG16 on CIFAR" (14.73 M parameters).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import Classifier, ConvNet, Stem, check_stem, he_fan_out, make_dropout
from leanconv.models.zoo import Source, register_model

#: Convolutions a stage of the paper's networks with 16 and 19 layers that have weights.
DEPTHS: dict[int, tuple[int, int, int, int, int]] = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
#: Channels a stage, as multiples of the first one's.
WIDTHS = (1, 2, 4, 8, 8)


class VGGHead(nn.Module):
    """Average pooling to 7x7 and three linear layers.

    Args:
        in_channels: Channels of the last stage.
        hidden: Width of the first two linear layers.
        num_classes: Outputs.
        dropout: Probability of zeroing a hidden value while training.

    Raises:
        UserError: ``dropout`` is not in [0, 1).
    """

    def __init__(self, in_channels: int, hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(49 * in_channels, hidden),
            nn.ReLU(),
            make_dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            make_dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, num_classes)``."""
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


class VGG(ConvNet):
    """Five stages of 3x3 convolutions at strides 1, 2, 4, 8 and 16, and a pooling to stride 32.

    Weights start as in torchvision: N(0, 2 / fan-out), linear layers from N(0, 0.01²), biases zero.

    Args:
        depths: Convolutions a stage.
        base_width: Channels of the first stage (64 in the paper); the others have 2, 4, 8 and 8 times as many.
        stem: ``"imagenet"`` with three linear layers behind, or ``"cifar"`` with one and batch norm throughout.
        batch_norm: Whether batch norm follows each convolution; by default in the ``"cifar"`` form only.
        dropout: Probability of zeroing a hidden value of the linear layers while training.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``depths`` are not five positive numbers, ``stem`` is unknown or ``dropout`` out of range.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``; height and width at least 32.
    """

    def __init__(
        self,
        depths: Sequence[int] = DEPTHS[16],
        *,
        base_width: int = 64,
        stem: Stem = "imagenet",
        batch_norm: bool | None = None,
        dropout: float = 0.5,
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        check_stem(stem)
        if len(depths) != len(WIDTHS) or min(depths) < 1:
            raise UserError(f"`depths` must be {len(WIDTHS)} positive numbers, got {depths}; {DEPTHS[16]} would work.")
        normalised = stem == "cifar" if batch_norm is None else batch_norm
        width, stages = in_channels, list[nn.Module]()
        for index, (depth, factor) in enumerate(zip(depths, WIDTHS, strict=True)):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if index else []
            for _ in range(depth):
                layers.append(nn.Conv2d(width, base_width * factor, 3, padding=1))
                width = base_width * factor
                layers += [nn.BatchNorm2d(width), nn.ReLU()] if normalised else [nn.ReLU()]
            stages.append(nn.Sequential(*layers))
        head = Classifier(width, num_classes) if stem == "cifar" else VGGHead(width, 8 * width, num_classes, dropout)
        super().__init__(nn.Identity(), [*stages, nn.MaxPool2d(2)], head, features_only=features_only)
        he_fan_out(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)


_SOURCE = Source(
    "Simonyan and Zisserman 2014, arXiv 1409.1556",
    certain="all of the form for photos; torchvision's networks give the same outputs",
    chosen="batch norm and one linear layer in the form for 32-pixel images, as is customary",
)
for _depth, _published in {16: "138 M", 19: "144 M"}.items():
    register_model(
        f"vgg{_depth}",
        VGG,
        _SOURCE,
        published=_published,
        input_size=(3, 224, 224),
        num_classes=1000,
        small={"base_width": 4},
        depths=DEPTHS[_depth],
    )
