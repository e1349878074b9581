"""Started by tests: train the tiny network; in the step that the second argument names, wait to be killed."""

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from toy_images import toy_data, toy_net

from leanconv.training import Classify, Recipe, train


class Stall(Classify):
    """Leaves a mark and waits to be killed in a certain step."""

    def __init__(self, step: int, mark: Path) -> None:
        super().__init__(0.1)
        self.left, self.mark = step, mark

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            self.mark.touch()
            time.sleep(600)
        return super().loss(model, inputs, targets)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, stall = Path(sys.argv[1]), int(sys.argv[2])
    recipe = Recipe(
        epochs=4,
        batch_size=16,
        warmup_epochs=1,
        lr=0.01,
        ema=0.9,
        channels_last=True,
        log_every=2,
        augment={"crop_padding": 1, "flip": True},
    )
    task = Stall(stall, folder.with_suffix(".mark"))
    train(toy_net(), toy_data(), recipe, folder, task=task, resume=True, log=("jsonl",))
