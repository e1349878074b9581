"""Our own network for super-resolution: residual axial convolutions on the small image, enlarged at the very end.

Convolving the enlarged image, as VDSR and DRRN do, costs ``scale²`` times more than convolving the small one (Shi et
al., 2016, arXiv 1609.05158, whose pixel shuffle it ends with).  Its layers are full 1-D convolutions along height and
width, each in its own residual, so that deep stacks train without batch norm; folding puts the residuals into the
kernels, and two plain convolutions a layer are left.  A linear 5x5 convolution beside them starts as exact bicubic
interpolation, and the last layer of the stack at zero: training starts from the bicubic image.

Cost with kernels ``k``, width ``d`` and ``n`` layers: about ``n 2 k d²`` parameters and, a pixel of the *small* image,
as many multiply-accumulates.
"""

import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.imresize import imresize
from leanconv.models.superres import SuperResolution
from leanconv.models.zoo import Source, register_model
from leanconv.ops.axial import AxialConv2d


class LeanSR(SuperResolution):
    """Residual axial layers, a pixel shuffle, and a linear path beside them.

    Args:
        scale: Factor on both sides.
        width: Channels of the layers.
        depth: Layers.
        kernel_size: Taps of their 1-D convolutions, odd.

    Raises:
        UserError: An argument is out of range.

    Shapes:
        ``(N, 1, h, w)``, the small image, to ``(N, 1, scale * h, scale * w)``.
    """

    def __init__(self, scale: int = 2, *, width: int = 32, depth: int = 8, kernel_size: int = 5) -> None:
        if type(scale) is not int or not 2 <= scale <= 16:
            raise UserError(f"`scale` must be a whole number of 2 to 16, got {scale!r}.")
        if width < 1 or depth < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(
                f"`width` and `depth` must be positive and `kernel_size` odd, got {width}, {depth} and {kernel_size}."
            )
        super().__init__((scale,), upsamples=True)
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.layers = nn.Sequential(*(_layer(width, kernel_size) for _ in range(depth)))
        self.expand = nn.Conv2d(width, scale**2, 3, padding=1)
        self.linear = nn.Conv2d(1, scale**2, 5, padding=2, padding_mode="replicate", bias=False)
        self.shuffle = nn.PixelShuffle(scale)
        self.halo = 2 + depth * (kernel_size // 2)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.linear.weight.copy_(bicubic_kernels(scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 1, h, w)`` to ``(N, 1, scale * h, scale * w)``."""
        y = self.stem(x)
        out: Tensor = self.shuffle(self.expand(y + self.layers(y)) + self.linear(x))
        return out


def _layer(width: int, kernel_size: int) -> nn.Sequential:
    axial = AxialConv2d(width, width, kernel_size, padding="same", residual=True)
    return nn.Sequential(axial, nn.ReLU())


def bicubic_kernels(scale: int) -> Tensor:
    """Return ``(scale², 1, 5, 5)`` kernels that before a pixel shuffle make bicubic interpolation, ends repeated."""
    impulses = torch.eye(25, dtype=torch.float64, device="cpu").reshape(25, 5, 5)
    middle = imresize(impulses, scale)[:, 2 * scale : 3 * scale, 2 * scale : 3 * scale]
    return middle.permute(1, 2, 0).reshape(scale**2, 1, 5, 5)


register_model(
    "lean_sr",
    LeanSR,
    Source("leanconv's own", certain="all", chosen="full axial convolutions, folded for use; upsampling at the end"),
    input_size=(1, 128, 128),
    num_classes=None,
    small={"width": 8, "depth": 2},
    purpose="superres",
)
