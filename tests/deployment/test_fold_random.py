"""Random small networks fold to networks that compute the same."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from trained import Residual, Sum, trained

from leanconv.deployment import fold
from leanconv.ops import AxialConv2d
from leanconv.ops.geometry import PADDING_MODES


@st.composite
def layers(draw: st.DrawFn, channels: int) -> tuple[nn.Module, int]:
    """One layer of any kind, and the channels it writes."""
    kind = draw(st.sampled_from(["conv", "norm", "pool", "act", "residual", "sum", "axial"]))
    if kind == "norm":
        return nn.BatchNorm2d(channels), channels
    if kind == "pool":
        return nn.AvgPool2d(draw(st.integers(1, 3)), 1, ceil_mode=draw(st.booleans())), channels
    if kind == "act":
        return nn.ReLU(inplace=draw(st.booleans())), channels
    groups = draw(st.sampled_from([1, 2, channels]))
    mode = draw(st.sampled_from(PADDING_MODES))
    if kind == "axial":
        return AxialConv2d(channels, channels, 3, 1, "same", groups=groups, padding_mode=mode, residual=True), channels
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    if kind == "conv":
        out = draw(st.sampled_from([4, 8]))
        padding = draw(st.integers(0, 1)) if min(kernel) > 1 else 0
        stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        return nn.Conv2d(channels, out, kernel, stride, padding, 1, groups if out % groups == 0 else 1, True, mode), out
    dilation = draw(st.integers(1, 2))
    conv = nn.Conv2d(channels, channels, kernel, 1, "same", dilation, groups, draw(st.booleans()), mode)
    if kind == "residual":
        return Residual(nn.Sequential(conv, nn.BatchNorm2d(channels))), channels
    other = nn.Conv2d(channels, channels, draw(st.sampled_from([1, 3])), 1, "same")
    return Sum(conv, other), channels


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    channels, stack = 4, []
    for _ in range(draw(st.integers(1, 6))):
        layer, channels = draw(layers(channels))
        stack.append(layer)
    return nn.Sequential(*stack)


@settings(max_examples=60)
@given(networks(), st.integers(28, 33), st.integers(28, 33), st.booleans())
def test_random_networks_compute_the_same(model: nn.Module, height: int, width: int, known: bool) -> None:
    model = trained(model).double()
    x = torch.randn(2, 4, height, width, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x.clone())
        for target in ("torch", "openvino"):
            found = fold(model, target=target, input_size=tuple(x.shape) if known else None)(x.clone())
            scale = max(float(expected.abs().max()), 1.0)
            assert (found - expected).abs().max() <= 1e-12 * scale
