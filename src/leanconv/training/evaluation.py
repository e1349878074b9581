"""A network's metrics over every image of a split."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from leanconv.data.pictures import PictureData
from leanconv.data.splits import ImageData
from leanconv.errors import UserError
from leanconv.training.device import compute_device
from leanconv.training.metrics import add_sums
from leanconv.training.recipe import PRECISIONS
from leanconv.training.superres import SuperResolve
from leanconv.training.tasks import Classify, EvaluationBatches, Task

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes."""


def evaluate(
    model: nn.Module,
    data: ImageData | PictureData,
    *,
    split: str = "test",
    batch_size: int = 256,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    channels_last: bool = False,
    task: Task | None = None,
) -> dict[str, float]:
    """Evaluate a network on every image of a split.

    Args:
        model: The network; it is moved to ``device`` and its training mode is left as it was.
        data: The data set.
        split: ``"test"`` or ``"train"`` (without augmentation).
        batch_size: Images in a batch; the result does not depend on it.
        device: Where to compute; the device of the model by default.
        precision: ``"fp32"``, or ``"bf16"`` for autocast.
        channels_last: Compute in NHWC order.
        task: What is measured; what the data is for by default.

    Returns:
        Means over all images: ``loss``, and for classification ``top1`` and (above five classes) ``top5``
        as fractions of 1, for super-resolution those of
        :meth:`~leanconv.training.superres.SuperResolve.sums`; further ``images`` and ``images_per_second``.

    Raises:
        UserError: The network does not fit the data, or an argument is not known.
    """
    if split not in ("test", "train"):
        raise UserError(f"split={split!r} is not known: it is 'test' or 'train'.")
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision!r} is not known: it is {' or '.join(PRECISIONS)}.")
    where = compute_device(device) if device is not None else device_of(model)
    model.to(where)
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    usual: Task = SuperResolve() if isinstance(data, PictureData) else Classify()
    chosen = task or usual
    chosen.check(model, data)
    batches = chosen.test_batches(data, split, batch_size, device=where)
    return evaluate_batches(model, batches, chosen, precision=precision, channels_last=channels_last)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter, the CPU if there is none."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def evaluate_batches(
    model: nn.Module,
    batches: EvaluationBatches,
    task: Task,
    *,
    precision: str,
    channels_last: bool,
    reduce: Reduce = lambda sums: sums,
) -> dict[str, float]:
    """Average the task's metrics over one pass of ``batches`` and all processes that ``reduce`` joins."""
    was_training = model.training
    model.eval()
    totals: dict[str, Tensor] = {}
    images = 0
    started = time.perf_counter()
    try:
        with (
            torch.inference_mode(),
            torch.autocast(batches.device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            for inputs, targets in batches.epoch(0):
                if channels_last:
                    inputs = inputs.contiguous(memory_format=torch.channels_last)
                images += len(inputs)
                if len(inputs):  # the part of one of many processes in a last, small batch may be empty
                    totals = add_sums(totals, task.sums(model, inputs, targets))
    finally:
        model.train(was_training)
    names = sorted(totals)
    count = torch.tensor(float(images), dtype=torch.float64, device=batches.device)
    *sums, images = reduce(torch.stack([*(totals[name] for name in names), count])).tolist()
    seconds = time.perf_counter() - started
    means = {name: value / images for name, value in zip(names, sums, strict=True)}
    return means | {"images": int(images), "images_per_second": images / seconds}
