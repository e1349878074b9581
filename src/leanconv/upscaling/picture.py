"""Picture files: pixels of 8 or 16 bits upright, and what else the file says of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanconv.errors import UserError
from leanconv.upscaling.transparency import Pixels

if TYPE_CHECKING:
    import pyvips

#: What stays with a picture: its colour profile, what the camera, the photographer and programs wrote.  libvips holds
#: each under a name that begins so.
_KEPT = ("icc-profile-data", "exif", "xmp-data", "iptc-data", "photoshop-data", "png-comment", "image-description")
#: What libvips says where a file says nothing, and what programs then take: 72 pixels an inch.
_UNKNOWN_DENSITY, _USUAL_DENSITY = 1.0, 72 / 25.4
#: Channels and bits by libvips's names.
_INTERPRETATIONS = {
    ("b-w", "uchar"): (1, 2),
    ("grey16", "ushort"): (1, 2),
    ("srgb", "uchar"): (3, 4),
    ("rgb16", "ushort"): (3, 4),
}


@dataclass(frozen=True)
class Format:
    """A kind of file that pictures are written to.

    Attributes:
        options: What libvips's writer is told.
        deep: Whether it holds 16 bits.
        transparent: Whether it holds transparency.
        lossy: Whether there is a quality to choose.
    """

    options: dict[str, Any]
    deep: bool = False
    transparent: bool = True
    lossy: bool = False


_PNG = Format({"compression": 6, "filter": "all"}, deep=True)
_JPEG = Format({"optimize_coding": True}, transparent=False, lossy=True)
_TIFF = Format({"compression": "lzw", "predictor": "horizontal"}, deep=True)
#: By suffix, in small letters.
FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": Format({}, lossy=True),
}


@dataclass(frozen=True)
class Picture:
    """A picture as a file holds it, turned upright.

    Attributes:
        pixels: ``(H, W, C)``, uint8 or uint16: grey, grey and alpha, RGB, or RGB and alpha.
        interpretation: libvips's name of the colours.
        density: Pixels a millimetre, across and down.
        fields: Type, name and value of what else the file says.
    """

    pixels: Pixels
    interpretation: str
    density: tuple[float, float]
    fields: tuple[tuple[int, str, Any], ...]


def format_of(path: Path) -> Format:
    """Return the format that a file's suffix names.

    Raises:
        UserError: It names none that is written.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"`target` {str(path)!r} must end in one of {', '.join(FORMATS)}.")
    return FORMATS[path.suffix.lower()]


def require_superres_extra() -> None:
    """Make sure that pictures can be read, before a network is.

    Raises:
        UserError: pyvips is not installed.
    """
    _vips()


def _vips() -> Any:
    """Return the module pyvips, told to keep no results of old operations."""
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise UserError('Reading pictures needs the "superres" extra: pip install "leanconv[superres]"') from error
    pyvips.cache_set_max(0)
    return pyvips


def read_picture(path: Path) -> Picture:
    """Read a picture file and turn it upright, as the camera's orientation tag says.

    PNG, JPEG, TIFF, WebP and GIF with all they may hold (palettes, 16 bits, …), and BMP and PNM in 8 bits.

    Raises:
        UserError: There is no such file, it is no picture or not whole, or it holds something other than one picture
            of grey or RGB in 8 or 16 bits.
    """
    vips = _vips()
    if not path.is_file():
        raise UserError(f"File {path} does not exist." if not path.exists() else f"{path} is a folder, not a picture.")
    try:
        image = _opened(vips, path)
        _check(image, path)
        upright = image.autorot()
        pixels = upright.numpy()
    except vips.Error as error:
        raise UserError(f"File {path} is not a whole picture: {_reason(error)}.") from error
    fields = tuple(
        (upright.get_typeof(name), name, upright.get(name))
        for name in upright.get_fields()
        if name.startswith(_KEPT) and not name.endswith("-Orientation")
    )
    density = tuple(_USUAL_DENSITY if d == _UNKNOWN_DENSITY else d for d in (upright.xres, upright.yres))
    return Picture(
        pixels.reshape(*pixels.shape[:2], upright.bands),
        upright.interpretation,
        (density[0], density[1]),
        fields,
    )


def write_picture(pixels: Pixels, like: Picture, path: Path, *, quality: int) -> None:
    """Write pixels with what the file of another picture said of it.

    Args:
        pixels: ``(H, W, C)``, uint8 or uint16.
        like: The picture they were made from.
        path: The file; its suffix says which format.
        quality: 1 to 100, for formats that lose detail.

    Raises:
        UserError: It cannot be written.
    """
    vips = _vips()
    target = format_of(path)
    height, width, channels = pixels.shape
    deep = pixels.dtype == np.uint16
    kind = {False: {1: "b-w", 3: "srgb"}, True: {1: "grey16", 3: "rgb16"}}[deep][channels - 1 + channels % 2]
    image = vips.Image.new_from_memory(pixels.data, width, height, channels, "ushort" if deep else "uchar")
    image = image.copy(interpretation=kind, xres=like.density[0], yres=like.density[1])
    for type_, name, value in like.fields:
        image.set_type(type_, name, value)
    # The block with the camera's notes still holds the tag, which this overrules.
    image.set_type(vips.GValue.gint_type, "orientation", 1)
    options = target.options | ({"Q": quality} if target.lossy else {})
    try:
        image.write_to_file(str(path), **options)
    except vips.Error as error:
        raise UserError(f"The picture could not be written: {_reason(error)}.") from error


def _opened(vips: Any, path: Path) -> "pyvips.Image":
    try:
        return vips.Image.new_from_file(str(path), fail_on="error")
    except vips.Error as error:
        if "not a known file format" not in str(error):
            raise
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise UserError(f"File {path} is not a picture of a known format.") from None
    try:
        with Image.open(path) as opened:
            opened.load()
            shown = (
                opened if opened.mode in ("L", "RGB", "RGBA") else opened.convert("L" if opened.mode == "1" else "RGB")
            )
            pixels = np.array(shown)
    except UnidentifiedImageError:
        raise UserError(f"File {path} is not a picture of a known format.") from None
    # Pillow's decoders raise many kinds of exceptions on broken files; to the user they are all one.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"File {path} is not a whole picture: {str(error).rstrip('.')}.") from error
    return vips.Image.new_from_array(pixels, interpretation="b-w" if pixels.ndim == 2 else "srgb")


def _check(image: "pyvips.Image", path: Path) -> None:
    if "n-pages" in image.get_fields() and image.get("n-pages") > 1:
        raise UserError(f"File {path} holds {image.get('n-pages')} pictures: save the one that is meant alone.")
    if image.interpretation == "cmyk":
        raise UserError(f"File {path} is in CMYK, for print: convert it to RGB first, with its colour profile.")
    if image.bands not in _INTERPRETATIONS.get((image.interpretation, image.format), ()):
        raise UserError(
            f"File {path} has {image.bands} channels of {image.interpretation} in {image.format}: grey or RGB of 8 or "
            "16 bits would work."
        )


def _reason(error: Exception) -> str:
    """Return the first thing that libvips says of an error, without where it says it from."""
    lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()] or [str(error)]
    return lines[0].split(": ", 1)[-1].rstrip(".")
