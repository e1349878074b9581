"""A tiny image set that a tiny network learns, and the network; shared by tests and the scripts they start."""

import torch
from torch import Tensor, nn

from leanconv.data import ArraySplit, Augment, ImageData


def toy_data(train: int = 96, test: int = 33, classes: int = 7, channels: int = 3) -> ImageData:
    """Noise of 8x8 pixels with one bright column that tells the class."""

    def split(count: int, seed: int) -> ArraySplit:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, classes, (count,), generator=generator)
        images = torch.randint(0, 120, (count, channels, 8, 8), generator=generator, dtype=torch.uint8)
        images[torch.arange(count), :, :, labels] = 250
        return ArraySplit(images, labels)

    return ImageData(
        name="toy",
        classes=tuple(f"column {index}" for index in range(classes)),
        channels=channels,
        image_size=(8, 8),
        mean=(0.25,) * channels,
        std=(0.25,) * channels,
        train=split(train, 1),
        test=split(test, 2),
        augment=Augment(crop_padding=0),
    )


class ToyNet(nn.Module):
    """Convolution, batch norm, dropout and a linear classifier."""

    def __init__(self, classes: int = 7, channels: int = 3, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width * 8, classes)
        self.config = {"name": "toy", "kwargs": {"classes": classes, "width": width}}

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x.to(self.conv.weight.dtype))))
        return self.linear(self.dropout(x.mean(2).flatten(1)))


def toy_net(seed: int = 0, **kwargs: float) -> ToyNet:
    """The network with weights that depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ToyNet(**kwargs)
