"""Small random networks with every kind of convolution."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from leanconv.ops.geometry import PADDING_MODES
from leanconv.ops.structured import CONV


class Residual(nn.Module):
    """A branch, added to its input where shapes allow, with an activation in place."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        return torch.relu_(y + x if y.shape == x.shape else y)


@st.composite
def convolutions(draw: st.DrawFn, dims: int, channels: int) -> nn.Module:
    kernel = draw(st.tuples(*[st.integers(1, 3)] * dims))
    mode = draw(st.sampled_from(PADDING_MODES))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * dims))
    kwargs: dict[str, Any] = {
        "stride": draw(st.tuples(*[st.integers(1, 2)] * dims)),
        "padding": tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True)),
        "dilation": dilation,
        "groups": draw(st.sampled_from([1, 1, 2])),
        "bias": draw(st.booleans()),
        "padding_mode": mode,
    }
    return CONV[dims](channels, draw(st.sampled_from([4, 6])), kernel, **kwargs)  # type: ignore[arg-type]


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A network in float64 and inputs for it; at least one of its convolutions has several taps on each axis."""
    dims = draw(st.integers(1, 3))
    first = CONV[dims](2, 4, 3, padding=draw(st.sampled_from([1, "same", 0])))  # type: ignore[arg-type]
    layers: list[nn.Module] = [first, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](4), nn.ReLU(True)]
    channels = 4
    for _ in range(draw(st.integers(1, 2))):
        conv: Any = draw(convolutions(dims, channels))
        layers.append(Residual(conv))
        channels = conv.out_channels
    torch.manual_seed(draw(st.integers(0, 99)))
    model = nn.Sequential(*layers).double()
    size = 9 if dims < 3 else 7
    model(
        torch.randn(8, 2, *[size] * dims, dtype=torch.float64)
    )  # running statistics that are not those of a fresh one
    return model.eval(), torch.randn(3, 2, *[size] * dims, dtype=torch.float64)


def small_net() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )
    model(torch.randn(64, 3, 8, 8))
    return model.eval()


def images(count: int = 64) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(2))
