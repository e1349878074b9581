"""Other people's networks, imported as independent truth where they are installed."""

import functools
from types import ModuleType

import pytest
import torch

#: Declarations last as long as the objects that made them.
_DECLARATIONS: list[torch.library.Library] = []


@functools.cache
def torchvision() -> ModuleType:
    """Return torchvision with its models, or skip the test."""
    try:
        return pytest.importorskip("torchvision")
    except RuntimeError:
        # Beside a CPU build of torch its compiled operators are missing; networks need only two declarations.
        _DECLARATIONS.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            _DECLARATIONS[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return pytest.importorskip("torchvision")


def timm() -> ModuleType:
    """Return timm, which imports torchvision, or skip the test."""
    torchvision()
    return pytest.importorskip("timm")
