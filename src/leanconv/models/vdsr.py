"""VDSR: twenty plain 3x3 convolutions that add detail to the enlarged image.

Kim, Lee and Lee, 2016, "Accurate image super-resolution using very deep convolutional networks", CVPR, arXiv
1511.04587.  Modules are named as in twtygqyy/pytorch-vdsr, whose weights load as they are.

Cost: 664,704 parameters, and as many multiply-accumulates a pixel of the enlarged image.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.superres import SCALES, SuperResolution
from leanconv.models.zoo import Source, register_model


class _ConvReLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.conv(x))
        return out


class VDSR(SuperResolution):
    """A stack of 3x3 convolutions and ReLUs whose output is added to its input.

    Args:
        depth: Convolutions, the first and the last included.
        width: Channels between them.
        scales: See :class:`~leanconv.models.superres.SuperResolution`.

    Raises:
        UserError: ``depth`` or ``width`` is too small.

    Shapes:
        ``(N, 1, H, W)``, enlarged beforehand, to the same.
    """

    def __init__(self, depth: int = 20, *, width: int = 64, scales: Sequence[int] = SCALES) -> None:
        super().__init__(scales)
        if depth < 2 or width < 1:
            raise UserError(f"`depth` must be at least 2 and `width` at least 1, got {depth} and {width}.")
        self.input = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.residual_layer = nn.Sequential(*(_ConvReLU(width) for _ in range(depth - 2)))
        self.output = nn.Conv2d(width, 1, 3, padding=1, bias=False)
        self.halo = depth
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 1, H, W)`` to the same."""
        detail: Tensor = self.output(self.residual_layer(self.relu(self.input(x))))
        return x + detail


register_model(
    "vdsr",
    VDSR,
    Source("Kim et al. 2016, arXiv 1511.04587", certain="all; twtygqyy/pytorch-vdsr has the same modules"),
    published="665 K",
    input_size=(1, 256, 256),
    num_classes=None,
    small={"depth": 4, "width": 8},
    purpose="superres",
)
