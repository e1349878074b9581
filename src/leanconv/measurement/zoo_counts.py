"""What the zoo's networks cost as they were designed, shipped, so that listing them builds none."""

import functools
import json
from pathlib import Path

import torch

from leanconv.measurement.counts import count_macs, count_params
from leanconv.models import MODELS, create_model

#: Parameters and MACs by name; ``docs/generate_models.py`` writes it.
ZOO_COUNTS = Path(__file__).with_name("zoo_counts.json")


def zoo_counts(name: str) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of a network at its default input.

    Those of a network that was registered by other packages are counted now.

    Args:
        name: One of :func:`leanconv.models.list_models`.

    Raises:
        UserError: The name is unknown.
    """
    entry, shipped = MODELS[name], _shipped().get(name)
    return shipped if shipped and entry.build.__module__.startswith("leanconv.") else counted(name)


def counted(name: str) -> tuple[int, int]:
    """Return what :func:`zoo_counts` does, counted on shapes alone: nothing is allocated, however large the network."""
    with torch.device("meta"):
        model = create_model(name)
    return count_params(model), count_macs(model, (1, *MODELS[name].input_size))


@functools.cache
def _shipped() -> dict[str, tuple[int, int]]:
    return {name: (params, macs) for name, (params, macs) in json.loads(ZOO_COUNTS.read_text()).items()}
