"""Picture files: what is read of them, and what stays with the enlarged one."""

from pathlib import Path

import numpy as np
import pytest
from picture_files import read_png16, smooth, write, write_png16
from PIL import Image, ImageCms

from leanconv.errors import UserError
from leanconv.upscaling.picture import FORMATS, read_picture, write_picture


def shown(path: Path, mode: str) -> np.ndarray:
    """Return a picture's pixels as Pillow reads them."""
    with Image.open(path) as opened:
        return np.asarray(opened.convert(mode))


MODES = [("1", 1), ("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)]


@pytest.mark.parametrize(("mode", "channels"), MODES)
def test_modes_are_read_as_pillow_reads_them(tmp_path: Path, mode: str, channels: int) -> None:
    path = write(tmp_path / "a.png", mode=mode)
    pixels = read_picture(path).pixels
    assert pixels.shape == (20, 30, channels)
    assert np.array_equal(pixels.squeeze(), shown(path, "L" if mode == "1" else mode))


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_palettes_become_colours(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(smooth(20, 30, 3)).quantize(16).save(path)
    assert np.array_equal(read_picture(path).pixels, shown(path, "RGB"))


def test_palettes_with_transparency_become_colours_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(smooth(20, 30, 3)).quantize(4).save(path, transparency=1)
    assert np.array_equal(read_picture(path).pixels, shown(path, "RGBA"))


@pytest.mark.parametrize("suffix", [".bmp", ".ppm", ".jpg", ".tif", ".webp"])
def test_formats_are_read_as_pillow_reads_them(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}")
    expected = shown(path, "RGB").astype(int)
    # Decoders of JPEG differ in how they interpolate colour.
    allowed = 3 if suffix == ".jpg" else 0
    assert np.abs(read_picture(path).pixels.astype(int) - expected).max() <= allowed


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_is_read_and_written(tmp_path: Path, channels: int) -> None:
    pixels = smooth(9, 14, channels, np.uint16)
    picture = read_picture(write_png16(tmp_path / "a.png", pixels))
    assert picture.pixels.dtype == np.uint16
    assert np.array_equal(picture.pixels, pixels)
    write_picture(pixels, picture, tmp_path / "b.png", quality=95)
    assert np.array_equal(read_png16(tmp_path / "b.png"), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_tiff_is_written_and_read(tmp_path: Path, channels: int) -> None:
    pixels = smooth(9, 14, channels, np.uint16)
    like = read_picture(write_png16(tmp_path / "a.png", pixels))
    write_picture(pixels, like, tmp_path / "b.tif", quality=95)
    assert np.array_equal(read_picture(tmp_path / "b.tif").pixels, pixels)
    if channels != 2:  # Pillow knows no grey with alpha in 16 bits
        with Image.open(tmp_path / "b.tif") as opened:
            assert opened.tag_v2[258] == (16,) * channels


@pytest.mark.parametrize(("mode", "channels"), MODES[1:])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_8_bits_are_written_as_they_are(tmp_path: Path, suffix: str, mode: str, channels: int) -> None:
    picture = read_picture(write(tmp_path / "a.png", mode=mode))
    write_picture(picture.pixels, picture, tmp_path / f"b{suffix}", quality=95)
    with Image.open(tmp_path / f"b{suffix}") as opened:
        assert opened.mode == mode
        assert np.array_equal(np.asarray(opened), picture.pixels.squeeze())


def test_pictures_of_one_bit_are_written_in_eight(tmp_path: Path) -> None:
    picture = read_picture(write(tmp_path / "a.png", mode="1"))
    write_picture(picture.pixels // 2, picture, tmp_path / "b.png", quality=95)
    assert np.array_equal(shown(tmp_path / "b.png", "L"), picture.pixels.squeeze() // 2)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("suffix", list(FORMATS))
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif"])
def test_profile_resolution_and_notes_stay(tmp_path: Path, source: str, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    notes = {"exif": exif} if source != ".tif" else {}
    path = write(tmp_path / f"a{source}", icc_profile=PROFILE, dpi=(300, 300), **notes)
    picture = read_picture(path)
    target = tmp_path / f"b{suffix}"
    write_picture(picture.pixels, picture, target, quality=95)
    with Image.open(target) as opened:
        assert opened.info["icc_profile"] == PROFILE
        if suffix != ".webp":
            assert opened.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        if suffix not in (".tif", ".tiff") and notes:
            assert opened.getexif()[0x010F] == "Maker"


def test_a_picture_without_resolution_gets_the_usual_one(tmp_path: Path) -> None:
    picture = read_picture(write(tmp_path / "a.png"))
    write_picture(picture.pixels, picture, tmp_path / "b.png", quality=95)
    with Image.open(tmp_path / "b.png") as opened:
        assert opened.info["dpi"] == pytest.approx((72, 72), abs=0.1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_are_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / f"a{suffix}", exif=exif)
    picture = read_picture(path)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened)).astype(int)
    assert np.abs(picture.pixels.astype(int) - expected).max() <= 3
    write_picture(picture.pixels, picture, tmp_path / f"b{suffix}", quality=95)
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert written.getexif().get(0x0112, 1) == 1
        assert written.size == expected.shape[1::-1]


def test_quality_is_that_of_the_file(tmp_path: Path) -> None:
    picture = read_picture(write(tmp_path / "a.png", 200, 300))
    for suffix in (".jpg", ".webp"):
        sizes = []
        for quality in (20, 95):
            write_picture(picture.pixels, picture, tmp_path / f"b{suffix}", quality=quality)
            sizes.append((tmp_path / f"b{suffix}").stat().st_size)
        assert sizes[0] < sizes[1]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".gif", ".bmp"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    whole = write(tmp_path / f"a{suffix}", 120, 160)
    path = tmp_path / f"b{suffix}"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    with pytest.raises(UserError, match=f"File {path} is not a whole picture: .*\\.$") as caught:
        read_picture(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"# a text\n", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_files_that_are_no_pictures_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"File {path} is not a"):
        read_picture(path)


@pytest.mark.parametrize(
    ("name", "mode", "said"), [("a.jpg", "CMYK", "CMYK"), ("a.tif", "CMYK", "CMYK"), ("a.tif", "F", "8 or 16 bits")]
)
def test_other_colours_are_refused(tmp_path: Path, name: str, mode: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_picture(write(tmp_path / name, mode=mode))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_several_pictures_in_a_file_are_refused(tmp_path: Path, suffix: str) -> None:
    others = [Image.fromarray(smooth(20, 30, 3, seed=seed)) for seed in (1, 2)]
    path = write(tmp_path / f"a{suffix}", save_all=True, append_images=others)
    with pytest.raises(UserError, match="holds 3 pictures"):
        read_picture(path)


def test_no_file_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(UserError, match="is a folder"):
        read_picture(tmp_path)
