"""What training gives."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from leanconv.training.recipe import Recipe

Row = dict[str, Any]
"""One finished epoch: ``epoch``, ``step``, ``lr``, ``train_loss``, ``test_…``, ``seconds``, …"""


@dataclass
class TrainResult:
    """What training gives.

    Attributes:
        model: The trained network in evaluation mode, with the weights of the last epoch (the averaged ones
            if the recipe averages).
        history: One row for each epoch: ``epoch`` (from 1), ``step``, ``lr``, ``train_loss``,
            ``images_per_second`` (or ``patches_per_second``) and ``seconds`` of its training part, and after an
            evaluation ``test_loss``,
            ``test_top1``, … over every test image.
        best: The row of the best evaluation; the earliest of equals.
        last: The row of the last epoch.
        recipe: How it was trained.
        output_dir: Where checkpoints and logs lie, if they were written.
    """

    model: nn.Module = field(repr=False)
    history: list[Row] = field(repr=False)
    best: Row
    last: Row
    recipe: Recipe
    output_dir: Path | None
