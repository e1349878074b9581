"""Options that several verbs share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from leanconv.errors import UserError

_TRAINING = "Training"

Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]


def between(option: str, low: int, high: int) -> Callable[[int | None], int | None]:
    """Return a check that refuses numbers out of range with a sentence that names option, value and range."""

    def check(value: int | None) -> int | None:
        if value is not None and not low <= value <= high:
            raise UserError(f"{option} {value} is out of range: give {low} to {high}.")
        return value

    return check


Width = Annotated[
    int | None,
    typer.Option(
        "--width",
        callback=between("--width", 1, 4096),
        help="Base width: channels of the first stage.  [dim]\\[default: the published one][/dim]",
        rich_help_panel="Model",
    ),
]
NetworkOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An argument of the network, such as stem=cifar; may be repeated.",
        rich_help_panel="Model",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", callback=between("--threads", 1, 1024), help="CPU threads of the latency measurement."),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="Name of a data set (digits, cifar10, …), a folder of images, or a folder or file of parquet.",
    ),
]
DataIfNeeded = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Name of a data set (digits, cifar10, …), a folder of images, or a folder or file of parquet. To enlarge "
        "images: train291, set5, set14, bsd100, urban100, photos, a folder or a parquet file.  "
        "[dim]\\[default: photos, for networks that enlarge images][/dim]",
    ),
]
Scales = Annotated[
    list[int] | None,
    typer.Option(
        "--scale",
        help="For networks that enlarge images: by how much; may be repeated.  [dim]\\[default: all its scales][/dim]",
        rich_help_panel="Model",
    ),
]
RecipeFile = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="YAML file, or the name of a recipe that comes with the package.",
        rich_help_panel=_TRAINING,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one value of the recipe, such as lr=0.05; may be repeated.",
        rich_help_panel=_TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        callback=between("--epochs", 1, 100_000),
        help="Epochs; the recipe's warm-up and steps keep their share of them.",
        rich_help_panel=_TRAINING,
    ),
]


DataFolder = Annotated[
    Path | None,
    typer.Option("--data-folder", help="Local copy of the files of a data set that is given by name."),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="Such as cpu or cuda:1.  [dim]\\[default: the accelerator if there is one][/dim]"),
]

# The recipe for a data set where none is named; every other data set gets the general one.
_RECIPES = {"digits": "digits_demo"}
_GENERAL_RECIPE = "ran_cifar"


def needed(data: str | None) -> str:
    """Return the data set of a classifier.

    Raises:
        UserError: None was given.
    """
    if data is None:
        raise UserError("--data is missing: give a name such as cifar10, or a folder of images.")
    return data


def default_recipe(data: str) -> str:
    """Return the name of the recipe for a data set where none is named."""
    return _RECIPES.get(data, _GENERAL_RECIPE)


def overrides(changes: list[str] | None, **short: object) -> list[str]:
    """Return the recipe's overrides: those of ``--set``, then the short options that were given."""
    given = [f"{name}={value}" for name, value in short.items() if value is not None]
    return [*(changes or []), *given]


def network_options(given: list[str] | None, **short: object) -> dict[str, Any]:
    """Return the arguments of a network: those of ``--set``, with JSON for values that are not text, and short ones.

    Raises:
        UserError: One is not of the form key=value.
    """
    parsed: dict[str, Any] = {}
    for text in given or []:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"--set {text!r} is no argument of a network: write it as in stem=cifar.")
        try:
            parsed[key] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key] = value
    return {**parsed, **{name: value for name, value in short.items() if value is not None}}


def names(option: str, text: str) -> list[str]:
    """Parse a comma-separated list of names such as ``eager,onnxruntime``.

    Raises:
        UserError: A name is empty.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UserError(f"{option} {text!r} is not a list of names: write them as in eager,onnxruntime.")
    return parts


def numbers(option: str, text: str, kind: type[int] | type[float] = int) -> tuple[float, ...]:
    """Parse a comma-separated list such as ``1,3,32,32``.

    Raises:
        UserError: It is something else.
    """
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{option} {text!r} is not a list of numbers: write them as in 1,3,32,32.") from None
