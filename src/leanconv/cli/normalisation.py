"""How pixels become numbers, where weights want it otherwise than the data set does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from leanconv.cli.options import numbers
from leanconv.errors import UserError, nearest

if TYPE_CHECKING:
    from leanconv.data import ImageData

Mean = Annotated[str | None, typer.Option("--mean", help="Mean of every channel, such as 0.5,0.5,0.5.")]
Std = Annotated[str | None, typer.Option("--std", help="Standard deviation of every channel.")]
Normalisation = Annotated[
    str | None,
    typer.Option(
        "--normalisation",
        "--normalization",
        help="imagenet, half (to -1 … 1), none (0 … 1), or the name of a data set.  "
        "[dim]\\[default: the data's own][/dim]",
    ),
]


def renormalised(data: ImageData, normalisation: str | None, mean: str | None, std: str | None) -> ImageData:
    """Return the data set with the constants that the command line names, if it does.

    Raises:
        UserError: They are named twice or half, the name is unknown, or they do not fit the channels.
    """
    constants = _constants(normalisation, mean, std, data)
    return data.with_normalisation(*constants) if constants else data


def _constants(
    normalisation: str | None, mean: str | None, std: str | None, data: ImageData
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation if the command line names them.

    Raises:
        UserError: They are named twice or half, or the name is unknown.
    """
    if (mean is None) != (std is None):
        raise UserError("--mean and --std go together: give both or neither.")
    if mean is not None and std is not None:
        if normalisation is not None:
            raise UserError(f"--normalisation {normalisation!r} and --mean say the same thing: give one of them.")
        return numbers("--mean", mean, float), numbers("--std", std, float)
    if normalisation is None:
        return None

    from leanconv.data import IMAGENET_MEAN, IMAGENET_STD
    from leanconv.data.known import DATA_SETS

    named = {name: (DATA_SETS[name].mean, DATA_SETS[name].std) for name in DATA_SETS}
    named["imagenet"] = (IMAGENET_MEAN, IMAGENET_STD)
    named["half"] = ((0.5,) * data.channels, (0.5,) * data.channels)
    named["none"] = ((0.0,) * data.channels, (1.0,) * data.channels)
    if normalisation not in named:
        raise UserError(f"Unknown normalisation {normalisation!r}: {nearest(normalisation, named)}")
    return named[normalisation]
