"""What ``leanconv train`` and ``leanconv evaluate`` do with networks that enlarge images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanconv.cli.console import interruptible, is_first_process, output, print_json
from leanconv.errors import UserError

if TYPE_CHECKING:
    from leanconv.training import Recipe

#: The recipe where none is named.
RECIPE = "superres"


def enlarges(model: str) -> bool:
    """Return whether a name is that of a network for super-resolution, or of the baseline without one."""
    from leanconv.models import list_models
    from leanconv.models.superres import BICUBIC

    return model == BICUBIC or model in list_models(purpose="superres")


def refuse_classifiers_options(model: str, **given: Any) -> None:
    """Refuse options that a network for super-resolution has no use for.

    Args:
        model: Its name.
        **given: Options by name, None where not given.
    """
    for name, value in given.items():
        if value is not None:
            raise UserError(f"--{name} does not apply to {model!r}, which enlarges the luma of images: leave it out.")


def refuse_scales(model: str, scales: list[int] | None) -> None:
    """Refuse scales for a network that classifies."""
    if scales:
        raise UserError(f"--scale does not apply to {model!r}, which classifies images: leave it out.")


def train_pictures(
    model: str,
    data: str | None,
    plan: Recipe,
    target: Path,
    *,
    scales: list[int] | None,
    resume: bool,
    overwrite: bool,
    device: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Train a network for super-resolution, and report its PSNR."""
    import torch

    from leanconv.data import load_pictures
    from leanconv.data.pictures import PHOTOS
    from leanconv.models import create_model
    from leanconv.models.superres import BICUBIC
    from leanconv.training import train as run
    from leanconv.training.checkpoint import LAST

    if model == BICUBIC:
        raise UserError(f"{BICUBIC!r} is no network: there is nothing to train.")
    if plan.task != "superres":
        raise UserError(f"The recipe is for task={plan.task!r}, and {model!r} needs one with task=superres.")
    pictures = load_pictures(data or PHOTOS, folder=folder)
    torch.manual_seed(plan.seed)
    network = create_model(model, **_made_for(model, scales))
    with interruptible(f"the same command with --resume goes on after the last epoch kept in {target}."):
        result = run(network, pictures, plan, target, resume=resume, overwrite=overwrite, device=device)
    if not is_first_process():
        return
    last, best = result.last, result.best
    record = {
        "model": network.config,
        "data": pictures.name,
        "recipe": plan.to_dict(),
        "last": last,
        "best": best,
        "output": str(target),
        "weights": str(target / LAST),
    }
    if as_json:
        print_json(record)
        return
    output().print(
        f"Test PSNR {_by_scale(last, 'test_psnr')} after epoch {last['epoch']} "
        f"(mean {last['test_psnr']:.2f} dB, best {best['test_psnr']:.2f} dB after epoch {best['epoch']}); "
        f"weights in {record['weights']}",
        markup=False,
        soft_wrap=True,
    )


def evaluate_pictures(
    model: str,
    weights: Path | None,
    data: str | None,
    *,
    scales: list[int] | None,
    split: str,
    precision: str,
    device: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Evaluate a network for super-resolution, or the bicubic baseline, on every test image at every scale."""
    from leanconv.data import load_pictures
    from leanconv.data.pictures import PHOTOS
    from leanconv.models.superres import BICUBIC, SCALES
    from leanconv.training import SuperResolve, enlarging_network
    from leanconv.training import evaluate as run

    network: Any = enlarging_network(model, weights, scales[0] if scales else None)
    wanted = tuple(scales) if scales else SCALES if model == BICUBIC else None
    pictures = load_pictures(data or PHOTOS, folder=folder)
    if not len(pictures.test if split == "test" else pictures.train):
        raise UserError(f"The data {pictures.name!r} has no images in its {split} split.")
    task = SuperResolve(scales=wanted, ssim=True)
    metrics = run(network, pictures, task=task, split=split, precision=precision, device=device)
    if as_json:
        config = getattr(network, "config", {"name": model})
        record = {"model": config, "weights": weights and str(weights), "data": pictures.name, "split": split}
        print_json({**record, **metrics})
        return
    found = ", ".join(
        f"x{scale} {metrics[f'psnr_x{scale}']:.2f} dB / {metrics[f'ssim_x{scale}']:.4f}"
        for scale in wanted or network.scales
    )
    output().print(
        f"{model} on {metrics['images']:g} {split} images of {pictures.name}: {found} (PSNR / SSIM of luma)",
        markup=False,
        soft_wrap=True,
    )


def _made_for(model: str, scales: list[int] | None) -> dict[str, Any]:
    """Return the arguments that make a network for scales: one, where it enlarges by itself."""
    from inspect import signature

    from leanconv.models import MODELS

    if not scales:
        return {}
    if "scale" not in signature(MODELS[model].build).parameters:
        return {"scales": tuple(sorted(set(scales)))}
    if len(scales) > 1:
        raise UserError(f"--scale {scales[1]} is one too many: {model!r} is trained for one scale at a time.")
    return {"scale": scales[0]}


def _by_scale(row: dict[str, Any], prefix: str) -> str:
    found = {name.removeprefix(f"{prefix}_"): value for name, value in row.items() if name.startswith(f"{prefix}_x")}
    return ", ".join(f"{scale} {value:.2f} dB" for scale, value in found.items())
