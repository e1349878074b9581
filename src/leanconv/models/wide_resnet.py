"""Wide residual networks for small images.

Zagoruyko and Komodakis, 2016, arXiv 1605.07146, table 1, and their code: few blocks of wide pre-activation
convolutions.  ``WRN-d-k`` has ``d`` layers and ``k`` times the channels of He et al.'s CIFAR networks.
"""

from functools import partial

from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import Classifier, ConvNet, he_fan_out, make_dropout, make_stages
from leanconv.models.zoo import Source, register_model

#: Channels of the stem, and of the first stage at widen factor 1.
BASE = 16


class WideBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions, dropout between them, and a shortcut.

    Where the channels change, the shortcut is a bare 1x1 convolution of the normalised and rectified input; elsewhere
    it is the input itself.

    Args:
        in_channels: Channels read.
        planes: Channels written.
        stride: Stride of the first convolution and of the shortcut.
        dropout: Probability of zeroing an entry between the convolutions while training.
    """

    def __init__(self, in_channels: int, planes: int, stride: int = 1, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.out_channels = planes
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.dropout = make_dropout(dropout)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.act = nn.ReLU()
        self.projects = stride != 1 or in_channels != planes
        self.shortcut = nn.Conv2d(in_channels, planes, 1, stride, bias=False) if self.projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, planes, H/stride, W/stride)``."""
        activated = self.act(self.bn1(x))
        y = self.conv2(self.dropout(self.act(self.bn2(self.conv1(activated)))))
        out: Tensor = y + self.shortcut(activated if self.projects else x)
        return out


class WideResNet(ConvNet):
    """Three stages of wide blocks at strides 1, 2 and 4, then batch norm, ReLU and the classifier.

    Weights start from N(0, 2 / fan-out) and the classifier's bias from zero, as in the authors' code.

    Args:
        depth: Layers, ``6 n + 4``, with ``n`` blocks a stage.
        widen_factor: Times 16, 32 and 64 channels.
        dropout: Probability of zeroing an entry between the convolutions of a block while training (0.3 or 0.4 where
            the paper uses it).
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: Return the stage outputs, before the last batch norm; see
            :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``depth`` is not ``6 n + 4``, ``widen_factor`` is no positive integer or ``dropout`` not in [0, 1).

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        depth: int = 28,
        widen_factor: int = 10,
        dropout: float = 0.0,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        if depth < 10 or depth % 6 != 4:
            raise UserError(f"`depth` must be 6 n + 4, got {depth}; {max(10, (depth - 1) // 6 * 6 + 4)} would work.")
        if not isinstance(widen_factor, int) or widen_factor < 1:
            raise UserError(f"`widen_factor` must be a positive integer, got {widen_factor!r}; 1 would work.")
        planes = [BASE * widen_factor * 2**stage for stage in range(3)]
        classifier = Classifier(planes[-1], num_classes)
        nn.init.zeros_(classifier.fc.bias)
        super().__init__(
            nn.Conv2d(in_channels, BASE, 3, padding=1, bias=False),
            make_stages(partial(WideBlock, dropout=dropout), BASE, ((depth - 4) // 6,) * 3, planes, (1, 2, 2)),
            nn.Sequential(nn.BatchNorm2d(planes[-1]), nn.ReLU(), classifier),
            features_only=features_only,
        )
        he_fan_out(self)


_SOURCE = Source("Zagoruyko and Komodakis 2016, arXiv 1605.07146", certain="all: ten published sizes are reproduced")
for _depth, _factor, _published in (
    (16, 8, "11.0 M"),
    (28, 2, ""),
    (28, 10, "36.5 M"),
    (40, 4, "8.9 M"),
    (40, 8, "35.7 M"),
):
    register_model(
        f"wrn{_depth}_{_factor}",
        WideResNet,
        _SOURCE,
        published=_published,
        small={"depth": 10, "widen_factor": 1},
        depth=_depth,
        widen_factor=_factor,
    )
