"""The folder of a run: what may be started, continued or replaced in it."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from leanconv.data.pictures import PictureData
from leanconv.data.splits import ImageData
from leanconv.errors import UserError
from leanconv.training.checkpoint import BEST, LAST, Checkpoint
from leanconv.training.logs import LOG, TENSORBOARD
from leanconv.training.recipe import LATER, Recipe

HOW_NOT_WHAT = ("epochs", "accumulate", "precision", "channels_last", "compile", "evaluate_every", "log_every")
"""Recipe values that may change when a run is continued: they say how far or how fast, not what is trained."""
STRETCHED = ("warmup_epochs", "step_epochs")
"""Recipe values that follow from the number of epochs, and may change with it."""


def make_folder(folder: Path) -> None:
    """Create the folder and its parents.

    Raises:
        UserError: It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output_dir={str(folder)!r} cannot be created: {error.strerror}.") from None


def refuse_finished_work(folder: Path) -> None:
    """Raise if the folder holds a run, which a fresh one would destroy."""
    if (folder / LAST).exists():
        raise UserError(
            f"Folder {folder} already holds a run: continue it with resume=True, replace it with overwrite=True, "
            "or choose another output_dir."
        )


def clear(folder: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    for name in (LAST, BEST, LOG):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)


def refuse_other_run(checkpoint: Checkpoint, recipe: Recipe, data: ImageData | PictureData, path: Path) -> None:
    """Raise if the run in a checkpoint was trained on other data or by another recipe."""
    own = data.identity
    if checkpoint.data != own:
        raise UserError(
            f"Checkpoint {path} was trained on {_described(checkpoint.data)} and the data is {_described(own)}."
        )
    free = HOW_NOT_WHAT if checkpoint.recipe.get("epochs") == recipe.epochs else HOW_NOT_WHAT + STRETCHED
    for name, value in dataclasses.asdict(recipe).items():
        before = checkpoint.recipe.get(name, LATER.get(name))
        if name not in free and before != value:
            raise UserError(
                f"Checkpoint {path} was trained with {name}={before!r} and the recipe says {name}={value!r}: "
                "resume with the same recipe, or start afresh in another output_dir."
            )


def _described(identity: dict[str, Any]) -> str:
    classes = f" of {len(identity['classes'])} classes" if "classes" in identity else ""
    return f"{identity['name']} ({identity['images']} images{classes})"
