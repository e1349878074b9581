"""Decoding, resampling and the parts of an image that are taken."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from leanconv.data.decoding import centre_box, decode, native_form, random_box, resample, to_tensor
from leanconv.data.sources import FileImages
from leanconv.errors import UserError

SIDES = st.integers(1, 400)
UNIFORM = st.floats(0, 1, exclude_max=True, width=32)


def files(tmp_path: Path, image: Image.Image, name: str = "x.png", **options: object) -> FileImages:
    image.save(tmp_path / name, **options)
    return FileImages([tmp_path / name])


GREY = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)


def test_pixels_come_back_as_they_were(tmp_path: Path) -> None:
    tensor = to_tensor(decode(files(tmp_path, Image.fromarray(RGB)), 0, 3))
    assert tensor.dtype == torch.uint8
    assert torch.equal(tensor, torch.from_numpy(RGB).permute(2, 0, 1))


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    images = files(tmp_path, Image.fromarray(GREY))
    assert native_form(images, 0) == ((3, 4), 1)
    assert torch.equal(to_tensor(decode(images, 0, 1))[0], torch.from_numpy(GREY))
    assert torch.equal(to_tensor(decode(images, 0, 3)), torch.from_numpy(GREY).expand(3, 3, 4))


def test_rgb_becomes_grey_by_luma(tmp_path: Path) -> None:
    images = files(tmp_path, Image.fromarray(RGB))
    assert native_form(images, 0) == ((3, 4), 3)
    luma = RGB.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(to_tensor(decode(images, 0, 1))[0].numpy() - luma).max() <= 1


def test_transparency_is_dropped(tmp_path: Path) -> None:
    alpha = np.dstack([RGB, np.full((3, 4), 7, np.uint8)])
    images = files(tmp_path, Image.fromarray(alpha))
    assert torch.equal(to_tensor(decode(images, 0, 3)), torch.from_numpy(RGB).permute(2, 0, 1))


def test_a_palette_with_transparency_is_decoded_without_a_warning(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(12)
    images = files(tmp_path, palette, transparency=bytes(range(12)))
    expected = torch.from_numpy(np.array(palette.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(to_tensor(decode(images, 0, 3)), expected)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    images = files(tmp_path, Image.fromarray(GREY.astype(np.uint16) * 256 + 77))
    assert native_form(images, 0) == ((3, 4), 1)
    assert torch.equal(to_tensor(decode(images, 0, 1))[0], torch.from_numpy(GREY))


def test_a_camera_on_its_side_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise to be seen upright
    images = files(tmp_path, Image.fromarray(GREY), exif=exif)
    assert native_form(images, 0) == ((4, 3), 1)
    turned = np.rot90(GREY, -1).copy()
    assert torch.equal(to_tensor(decode(images, 0, 1))[0], torch.from_numpy(turned))


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    encoded = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(encoded, "png")
    for name, content, message in [
        ("text.png", b"hello", "text.png is not an image of a known format"),
        ("cut.png", encoded.getvalue()[:3000], "cut.png is not a readable image: "),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            decode(FileImages([tmp_path / name]), 0, 3)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"gone\.png is not a readable image"):
        decode(FileImages([tmp_path / "gone.png"]), 0, 3)


@given(width=SIDES, height=SIDES, size=st.tuples(SIDES, SIDES), fraction=st.floats(0.1, 1))
def test_the_central_part_has_the_proportions_asked_for(
    width: int, height: int, size: tuple[int, int], fraction: float
) -> None:
    left, top, right, bottom = centre_box(width, height, size, fraction)
    assert min(left, top) >= -1e-6
    assert right <= width + 1e-6
    assert bottom <= height + 1e-6
    assert (right - left) / (bottom - top) == pytest.approx(size[1] / size[0])
    assert left + right == pytest.approx(width)
    assert top + bottom == pytest.approx(height)
    assert max((right - left) / width, (bottom - top) / height) == pytest.approx(fraction)


@given(width=SIDES, height=SIDES, least=st.floats(0.01, 1), draws=st.tuples(UNIFORM, UNIFORM, UNIFORM, UNIFORM))
def test_a_random_part_has_an_area_and_proportions_in_range(
    width: int, height: int, least: float, draws: tuple[float, float, float, float]
) -> None:
    left, top, right, bottom = random_box(width, height, least, torch.tensor(draws))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    part_width, part_height = right - left, bottom - top
    if part_width < width and part_height < height and min(part_width, part_height) > 1:
        # Sides are rounded to whole pixels, each by half a pixel at most.
        assert (part_width + 0.5) / (part_height - 0.5) >= 3 / 4
        assert (part_width - 0.5) / (part_height + 0.5) <= 4 / 3
        assert (part_width + 0.5) * (part_height + 0.5) >= least * width * height


def test_random_parts_cover_areas_evenly() -> None:
    uniform = torch.rand(4000, 4, generator=torch.Generator().manual_seed(0))
    areas, ratios, centres = [], [], []
    for draws in uniform:
        left, top, right, bottom = random_box(1000, 1000, 0.1, draws)
        areas.append((right - left) * (bottom - top) / 1e6)
        ratios.append(math.log((right - left) / (bottom - top)))
        centres.append(((left + right) / 2000, (top + bottom) / 2000))
    # Uniform on [0.1, 1] but for parts cut at the border, which are the largest.
    assert np.mean(areas) == pytest.approx(0.55, abs=0.03)
    assert np.mean(np.array(areas) < 0.325) == pytest.approx(0.25, abs=0.03)
    assert np.mean(ratios) == pytest.approx(0, abs=0.01)
    assert np.mean(centres, axis=0) == pytest.approx([0.5, 0.5], abs=0.01)


def test_resampling_takes_the_part_and_keeps_the_mean() -> None:
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (20, 1))
    half = np.array(resample(Image.fromarray(ramp), (20, 10), (0, 0, 20, 20)))
    assert half.shape == (20, 10)
    assert np.abs(half[:, 1:-1] - ramp.reshape(20, 10, 2).mean(axis=2)[:, 1:-1]).max() <= 1
    part = np.array(resample(Image.fromarray(ramp), (5, 4), (3, 2, 7, 7)))
    assert (part == ramp[2:7, 3:7]).all()
