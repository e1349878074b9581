"""Small folders of images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture
def colour_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder of images of one colour a class, each with its number in a corner."""

    def write(*splits: str, per_class: int = 5, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> Path:
        folder = tmp_path / "colours"
        for split in splits or ("",):
            for name, colour in COLOURS.items():
                (folder / split / name).mkdir(parents=True)
                for number in range(per_class):
                    pixels = np.empty((size[0], size[1], 3), np.uint8)
                    pixels[:] = colour
                    pixels[0, 0] = number
                    image = Image.fromarray(pixels).convert(mode)
                    image.save(folder / split / name / f"{number}.png")
        return folder

    return write
