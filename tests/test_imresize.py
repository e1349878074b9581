"""Resizing is MATLAB's, to the last bit."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from leanconv.errors import UserError
from leanconv.imresize import cubic, imresize


def pictures(path: object) -> dict[str, Tensor]:
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    images = {row["name"]: Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows}
    return {
        name: torch.from_numpy(np.atleast_3d(np.array(image)).copy()).movedim(-1, 0) for name, image in images.items()
    }


@pytest.mark.parametrize("name", ["set5", "set14"])
def test_every_given_image_is_matched_exactly(name: str, data_folder: object) -> None:
    folder = data_folder / "superres"
    high, low = pictures(folder / f"{name}.parquet"), pictures(folder / f"{name}_lr_matlab.parquet")
    compared = 0
    for scale in (2, 3, 4):
        for number, image in enumerate(high.values(), start=1):
            wanted = low[f"x{scale}_img_{number:03d}"]
            height, width = (side // scale * scale for side in image.shape[1:])
            found = imresize(image[: len(wanted), :height, :width], 1 / scale)
            assert torch.equal(found, wanted), (number, scale)
            compared += 1
    assert compared == 3 * len(high)


@pytest.mark.parametrize("scale", [0.5, 1 / 3, 0.25, 2.0, 3.0, 4.0])
def test_constants_stay_and_ramps_stay_straight(scale: float) -> None:
    ramp = torch.arange(30, dtype=torch.float64).expand(24, 30)
    found = imresize(ramp, scale)
    assert found.shape == (int(np.ceil(24 * scale)), int(np.ceil(30 * scale)))
    inside = found[:, round(6 * max(scale, 1)) : -round(6 * max(scale, 1))]
    steps = inside.diff(dim=1)
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / scale), atol=1e-9, rtol=0)
    flat = imresize(torch.full((9, 12), 0.3), scale)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


def test_the_kernel_is_keys_with_one_half() -> None:
    points = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], dtype=torch.float64)
    torch.testing.assert_close(cubic(points), torch.tensor([1, 0.5625, 0, -0.0625, 0, 0], dtype=torch.float64))


def test_uint8_is_rounded_after_each_pass() -> None:
    image = torch.randint(0, 256, (1, 12, 16), dtype=torch.uint8)
    tall = (imresize(image.double().mT.reshape(16, 12, 1), 1.0)).reshape(1, 16, 12).mT
    assert torch.equal(tall, image.double())
    assert imresize(image, 0.5).dtype == torch.uint8
    assert (imresize(image, 0.5).double() - imresize(image.double(), 0.5).clamp(0, 255)).abs().max() <= 1.3


def test_mistakes_are_answered() -> None:
    with pytest.raises(UserError, match="`scale` must be positive"):
        imresize(torch.rand(4, 4), 0)
    with pytest.raises(UserError, match="height and width"):
        imresize(torch.rand(4), 2)
