"""Small networks for super-resolution with random weights, of both kinds."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.models.superres import SuperResolution


class Small(SuperResolution):
    """Adds detail to the enlarged plane; sees 5 pixels around."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.halo = 5
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=3, dilation=3)
        self.last = nn.Conv2d(width, 1, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * self.last(F.relu(self.middle(F.relu(self.first(x)))))


class AtTheEnd(SuperResolution):
    """Works on the small plane and upsamples by pixel shuffle."""

    def __init__(self, scale: int = 2, padding_mode: str = "zeros") -> None:
        super().__init__((scale,), upsamples=True)
        self.halo = 4
        self.first = nn.Conv2d(1, 8, 5, padding=2, padding_mode=padding_mode)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, scale**2, 3, padding=1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        low = self.third(F.relu(self.second(F.relu(self.first(x)))))
        return F.pixel_shuffle(low, self.scale) + F.interpolate(x, scale_factor=self.scale, mode="nearest")


class Strided(SuperResolution):
    """Works at half the resolution of the enlarged plane, so that pieces must start at even pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.halo = 8
        self.down = nn.Conv2d(1, 8, 3, 2, padding=1)
        self.inside = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 1, 4, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        small = self.inside(F.relu(self.down(x)))
        return x + self.up(small)[..., : x.shape[-2], : x.shape[-1]]


class SeesEverything(Small):
    """Multiplies by a mean over the whole plane."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * x.mean((2, 3), keepdim=True)


def noisy(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.rand(height, width, channels)
