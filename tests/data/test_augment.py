"""Every transformation against a loop over the images of the batch."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leanconv.data.augment import DRAWS, Augment, crop, cutout, flip, normalise
from leanconv.errors import UserError

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
SEEDS = st.integers(0, 2**31)


def pixels(size: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def draws(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed))


@given(size=SIZES, padding=st.integers(0, 5), seed=SEEDS)
def test_crop_is_a_slice_of_the_padded_image(size: tuple[int, int, int, int], padding: int, seed: int) -> None:
    images = pixels(size, seed)
    offsets = torch.randint(0, 2 * padding + 1, (size[0], 2), generator=torch.Generator().manual_seed(seed))
    cropped = crop(images, padding, offsets)
    assert cropped.dtype == torch.uint8
    for image, result, (top, left) in zip(images, cropped, offsets.tolist(), strict=True):
        padded = F.pad(image, (padding,) * 4)
        assert torch.equal(result, padded[:, top : top + size[2], left : left + size[3]])


@given(size=SIZES, seed=SEEDS)
def test_flip_mirrors_the_chosen_images_only(size: tuple[int, int, int, int], seed: int) -> None:
    images = pixels(size, seed)
    mask = torch.rand(size[0], generator=torch.Generator().manual_seed(seed)) < 0.5
    for image, result, mirrored in zip(images, flip(images, mask), mask.tolist(), strict=True):
        assert torch.equal(result, image[:, :, range(size[3] - 1, -1, -1)] if mirrored else image)


@given(size=SIZES, side=st.integers(1, 12), seed=SEEDS)
def test_cutout_zeroes_one_square_clipped_at_the_border(size: tuple[int, int, int, int], side: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = 1 + torch.rand(size, generator=generator)
    rows = torch.randint(0, size[2], (size[0],), generator=generator)
    columns = torch.randint(0, size[3], (size[0],), generator=generator)
    result = cutout(images, side, torch.stack([rows, columns], dim=1))
    for image, cut, row, column in zip(images, result, rows.tolist(), columns.tolist(), strict=True):
        top, left = row - side // 2, column - side // 2
        expected = image.clone()
        expected[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
        assert torch.equal(cut, expected)
        assert (cut == 0).any()


@given(size=SIZES, seed=SEEDS)
def test_normalise_is_the_definition(size: tuple[int, int, int, int], seed: int) -> None:
    images = pixels(size, seed)
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.rand(size[1], generator=generator), 0.1 + torch.rand(size[1], generator=generator)
    expected = (images.double() / 255 - mean.double()[:, None, None]) / std.double()[:, None, None]
    result = normalise(images, mean, std)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-5)


def test_extreme_draws_reach_both_corners() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3)
    least, most = torch.zeros(1, DRAWS), torch.full((1, DRAWS), 1 - 2**-24)
    assert Augment(crop_padding=1).move(image, least).tolist() == [[[[0, 0, 0], [0, 1, 2], [0, 4, 5]]]]
    assert Augment(crop_padding=1).move(image, most).tolist() == [[[[5, 6, 0], [8, 9, 0], [0, 0, 0]]]]
    assert Augment(cutout=1).erase(image.float(), least).count_nonzero() == 8
    assert Augment(cutout=1).erase(image.float(), most)[0, 0, 2, 2] == 0
    assert torch.equal(Augment(flip=True).move(image, least), image.flip(-1))
    assert torch.equal(Augment(flip=True).move(image, most), image)


def test_the_default_changes_nothing() -> None:
    images = pixels((4, 3, 5, 5), 0)
    assert torch.equal(Augment().erase(Augment().move(images, draws(4)), draws(4)), images)


def test_every_offset_is_equally_likely() -> None:
    # An image of one pixel survives only the offset in the middle, one of 3 x 3.
    images = torch.ones(20_000, 1, 1, 1, dtype=torch.uint8)
    kept = Augment(crop_padding=1).move(images, draws(20_000)).float().mean().item()
    assert kept == pytest.approx(1 / 9, abs=0.01)


@settings(max_examples=20)
@given(seed=SEEDS)
def test_a_flip_leaves_the_crop_where_it_was(seed: int) -> None:
    images = pixels((16, 1, 6, 6), seed)
    images = torch.cat([images, images.flip(-1)], dim=-1)  # symmetric, so that a flip shows nowhere
    uniform = draws(16, seed)
    plain = Augment(crop_padding=2).move(images, uniform)
    assert torch.equal(plain, Augment(crop_padding=2, flip=True).move(images, uniform))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_padding": -1}, "crop_padding=-1 is not a number of pixels"),
        ({"cutout": -2}, "cutout=-2 is not a number of pixels"),
        ({"crop_area": 0.0}, "crop_area=0.0 is not a fraction"),
        ({"crop_area": 1.5}, "crop_area=1.5 is not a fraction"),
        ({"crop_padding": 1.5}, "crop_padding=1.5 is not a number of pixels"),
        ({"cutout": "four"}, "cutout='four' is not a number of pixels"),
        ({"flip": "maybe"}, "flip='maybe' is neither true nor false"),
        ({"crop_area": "half"}, "crop_area='half' is not a fraction"),
    ],
)
def test_values_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Augment(**arguments)
