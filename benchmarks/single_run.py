"""Train one network once, as a run of a ledger that may be continued."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from leanconv.comparison import Ledger, Run
from leanconv.data import ImageData
from leanconv.training import Recipe, train


def trained_run(
    name: str,
    build: Callable[[], nn.Module],
    data: ImageData,
    recipe: Recipe,
    seed: int,
    ledger: Ledger,
    device: str | None = None,
) -> tuple[nn.Module, Run]:
    """Train a network with one seed, and note that it is done.

    Args:
        name: Under which the ledger keeps it.
        build: Makes the network; random weights depend on the seed alone.
        data: What it is trained on.
        recipe: How; its seed is replaced.
        seed: Of weights, order and augmentation.
        ledger: Where it is kept; a run that was cut is continued.
        device: Where to train, None for the accelerator if there is one.

    Returns:
        The network after its last epoch, and the run.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
    folder = ledger.run_folder(name, seed)
    result = train(model, data, replace(recipe, seed=seed), folder, resume=True, device=device, progress=False)
    run = Run(
        name,
        seed,
        result.last["test_top1"],
        result.best["test_top1"],
        result.last["test_loss"],
        len(result.history),
        sum(row["seconds"] for row in result.history),
    )
    ledger.record(run)
    return result.model, run
