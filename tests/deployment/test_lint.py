"""Rules of lint: each finds its slow form in the layer that has it, and nothing in networks without it."""

import re

import pytest
import torch
from torch import Tensor, nn

from leanconv.deployment import lint
from leanconv.deployment.slow_forms import RULES


class SliceAssigned(nn.Module):
    """A shift to the right, as it is often written."""

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[..., 1:] = x[..., :-1]
        return out


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1, groups=16)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2))


class CumulativeSum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


def depthwise(kernel: int | tuple[int, ...], channels: int = 16, out: int = 16, dims: int = 2) -> nn.Module:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](channels, out, kernel, groups=channels)


IMAGE, SIGNAL, VOLUME = (2, 16, 9, 9), (2, 16, 9), (2, 16, 5, 5, 5)
CASES = [
    ("scatter", ".onnx", SliceAssigned(), IMAGE),
    ("asymmetric-depthwise", ".pt2", depthwise((1, 3)), IMAGE),
    ("transposed-depthwise", ".onnx", ChannelsLast(), (2, 9, 9, 16)),
    ("unusual-depthwise", ".onnx", depthwise(5), IMAGE),
    ("depthwise-multiplier", ".pt2", depthwise(3, out=32), IMAGE),
    ("large-depthwise", ".aoti.pt2", depthwise(7), IMAGE),
    ("depthwise-1d", ".pt2", depthwise(3, dims=1), SIGNAL),
    ("depthwise-3d", ".pt2", depthwise(3, dims=3), VOLUME),
    ("odd-channels", ".xml", nn.Conv2d(16, 30, 3), IMAGE),
    ("grouped-int8", ".onnx", nn.Conv2d(16, 16, 3, groups=4), IMAGE),
    ("opset-fallback", ".onnx", CumulativeSum(), IMAGE),
    ("lone-batch-norm", ".onnx", nn.Sequential(nn.ReLU(), nn.BatchNorm2d(16)), IMAGE),
]


@pytest.mark.parametrize(("rule", "target", "layer", "size"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_finds_its_form_in_the_layer_that_has_it(
    rule: str, target: str, layer: nn.Module, size: tuple[int, ...]
) -> None:
    model = nn.Sequential(nn.Identity(), layer)
    findings = lint(model, target, torch.randn(size), int8=rule == "grouped-int8")
    assert [finding.rule for finding in findings] == [rule]
    assert findings[0].layers[0].startswith("1")


def test_a_rule_is_silent_where_its_target_is_not_slow() -> None:
    assert not lint(depthwise((1, 3)), ".xml", torch.randn(IMAGE))
    assert not lint(nn.Conv2d(16, 16, 3, groups=4), ".onnx", torch.randn(IMAGE))


@pytest.mark.parametrize("target", [".onnx", ".xml", ".pt2", ".aoti.pt2"])
def test_a_plain_network_has_no_findings(target: str) -> None:
    plain = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), depthwise(3), nn.Conv2d(16, 32, 1)
    )
    assert not lint(plain, target, torch.randn(2, 3, 9, 9))


def test_every_rule_is_tested_and_names_its_threads() -> None:
    assert {rule.name for rule in RULES} == {case[0] for case in CASES}
    for rule in RULES:
        assert rule.threads
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", thread) for thread in rule.threads)
