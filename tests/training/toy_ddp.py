"""Started by tests under torchrun or alone: train the tiny network in float64 and write down what happened."""

import json
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from toy_images import toy_data, toy_net

from leanconv.training import Recipe, train

if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    folder, accumulate = Path(sys.argv[1]), int(sys.argv[2])
    model = toy_net(dropout=0.0).double()
    recipe = Recipe(epochs=3, batch_size=16, warmup_epochs=1, log_every=1, clip=1.0, ema=0.9, accumulate=accumulate)
    result = train(model, toy_data(), recipe, folder, device="cpu", log=("jsonl",))
    assert type(model.bn) is nn.BatchNorm2d, "the network is given back as it was"
    assert not any(module.training for module in model.modules())
    total = sum(float(value.sum()) for value in model.state_dict().values())
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    (folder / f"sum{rank}.json").write_text(json.dumps(total))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
