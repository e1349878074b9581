"""Networks that other libraries compress to a budget of multiply-accumulates, without any training."""

import copy
import warnings
from collections.abc import Callable

import torch
from torch import nn

from leanconv.measurement import count_macs

#: Steps of bisection for the share of ranks or channels that meets a budget.
BISECTIONS = 12


def tensorly(model: nn.Module, budget: float, factorization: str) -> nn.Module | None:
    """Return the network with 3x3 convolutions of its stages in a tensor format, by tensorly-torch; None without it."""
    try:
        import tltorch
    except ImportError:
        return None

    def build(share: float, decompose: bool) -> nn.Module:
        lean = copy.deepcopy(model)
        kwargs = {"init": "random", "random_state": 0} if factorization == "cp" else {}
        for name, conv in list(lean.stages.named_modules()):
            if isinstance(conv, nn.Conv2d):
                replacement = tltorch.FactorizedConv.from_conv(
                    conv,
                    rank=share,
                    factorization=factorization,
                    implementation="factorized",
                    decompose_weights=decompose,
                    decomposition_kwargs=kwargs,
                    # Its own rule would shrink the 3x3 modes, to its disadvantage.
                    **({"fixed_rank_modes": "spatial"} if factorization == "tucker" else {}),
                )
                parent, _, key = name.rpartition(".")
                setattr(lean.stages.get_submodule(parent), key, replacement)
        return lean.eval()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(_share(lambda share: build(share, False), model, budget), True)


def pruned(model: nn.Module, budget: float) -> nn.Module | None:
    """Return the network with inner channels of its blocks pruned by magnitude, by Torch-Pruning; None without it.

    The channels that shortcuts tie together are kept: pruning them would need shortcuts with other shapes.
    """
    try:
        import torch_pruning
    except ImportError:
        return None

    def build(share: float) -> nn.Module:
        lean = copy.deepcopy(model)
        inner = [module for name, module in lean.named_modules() if name.endswith("conv1")]
        ignored = [
            module
            for module in lean.modules()
            if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module not in inner)
        ]
        torch_pruning.pruner.MagnitudePruner(
            lean,
            torch.randn(1, 3, 32, 32),
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=1 - share,
            ignored_layers=ignored,
        ).step()
        return lean.eval()

    return build(_share(build, model, budget))


def _share(build: Callable[[float], nn.Module], model: nn.Module, budget: float) -> float:
    """Return the largest share whose network is within the budget."""
    size = (1, 3, 32, 32)
    most = budget * count_macs(model, size)
    low, high = 0.02, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if count_macs(build(middle), size) <= most else (low, middle)
    return low
