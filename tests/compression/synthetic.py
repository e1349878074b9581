"""Synthetic layers whose inputs are correlated in space and between channels, as those of networks are."""

import torch
import torch.nn.functional as F
from torch import Tensor


def correlated_images(count: int, channels: int, size: int, generator: torch.Generator) -> Tensor:
    """Gaussian images, smooth in space, whose channels are mixtures of each other with a decaying spectrum."""
    noise = torch.randn(count, channels, size + 4, size + 4, generator=generator, dtype=torch.float64)
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=torch.float64) / 16
    blur = torch.outer(taps, taps).expand(channels, 1, 5, 5)
    smooth = F.conv2d(noise, blur, groups=channels)
    spectrum = torch.arange(1, channels + 1, dtype=torch.float64).rsqrt()
    mixing = torch.randn(channels, channels, generator=generator, dtype=torch.float64) * spectrum
    return torch.einsum("oc,nchw->nohw", mixing, smooth)


def correlated_layer(
    *, channels: int, samples: int, outputs: int, rectified: bool = False, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return random weights (q, c, 9), centred 3x3 patches (N, 9 c) and centred responses (N, q)."""
    generator = torch.Generator().manual_seed(seed)
    images = correlated_images(-(-samples // 64), channels, 10, generator)
    if rectified:
        images = images.relu()
    weight = torch.randn(outputs, channels, 9, generator=generator, dtype=torch.float64)
    patches = F.unfold(images, 3).movedim(1, 2).flatten(0, 1)[:samples]
    patches = patches - patches.mean(0)
    return weight, patches, patches @ weight.flatten(1).mT


def moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.mT @ x, x.mT @ y, y.square().sum()


def relative_error(x: Tensor, y: Tensor, kernel: Tensor) -> float:
    return float(torch.linalg.norm(y - x @ kernel) / torch.linalg.norm(y))
