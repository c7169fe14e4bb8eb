"""Reading pictures, hostile ones included: whatever a file holds becomes RGB of 8 bits, or is refused with a reason."""

import io
import warnings
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no others: Pillow would start programs for some
MAX_PIXELS = 80_000_000  # below Pillow's own limit; a larger picture would need more than 240 MB in each reader

# Of pictures that are refused below, or whose metadata are broken while their pixels are fine.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadableError(ValueError):
    """Bytes that are no picture, or one that is too large; the message says which, and begins with "it"."""


def decode(image: bytes) -> Image.Image:
    """Decode a picture, of several frames the first, to RGB, turned upright as its EXIF data say.

    What is transparent becomes white; grey values of more than 8 bits are scaled (see `to_8_bits`).

    Raises:
        UnreadableError: It does not decode, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            opened.load()
            return to_rgb(upright(opened))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"it has more than {MAX_PIXELS:,} pixels") from error
    except MemoryError:  # says nothing about the picture
        raise
    except Exception as error:  # hostile bytes make Pillow raise nearly anything
        reason = "no picture of a known format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UnreadableError(f"it does not decode: {reason or type(error).__name__}") from error


def upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data say, in place; not where they are broken."""
    with suppress(Exception):  # see above
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """Bring a picture of any mode to RGB."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return Image.fromarray(to_8_bits(np.asarray(picture), picture.mode)).convert("RGB")
    if picture.has_transparency_data:
        layer, white = picture.convert("RGBA"), Image.new("RGB", picture.size, "white")
        white.paste(layer, mask=layer)
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def to_8_bits(grey_HW: npt.NDArray[np.generic], mode: str) -> npt.NDArray[np.uint8]:
    """Scale grey values to [0, 255], so that none is clipped.

    The range of 16 bits is their format's, [0, 65535]. Longer whole numbers and fractions have none of their own: the
    first of [0, 1] (fractions alone), [0, 255] and [0, 65535] that holds all values counts, or else their own extremes.

    Args:
        grey_HW: Any number type, (H, W); what is not finite counts as the lowest value.
        mode: Pillow's: "I", "F" or one of "I;16".
    """
    value_HW: npt.NDArray[np.floating] = grey_HW.astype(np.float64 if mode == "F" else np.float32)
    if mode == "F":
        finite_HW = np.isfinite(value_HW)
        value_HW[~finite_HW] = value_HW[finite_HW].min() if finite_HW.any() else 0.0
    lowest, highest = float(value_HW.min()), float(value_HW.max())
    tops = [65535.0] if mode.startswith("I;16") else [255.0, 65535.0] if mode == "I" else [1.0, 255.0, 65535.0]
    low, high = next(((0.0, top) for top in tops if lowest >= 0 and highest <= top), (lowest, highest))
    value_HW -= low
    value_HW *= 255 / (high - low) if high > low else 0.0
    scaled_HW: npt.NDArray[np.uint8] = np.rint(value_HW).astype(np.uint8)
    return scaled_HW


def problem(image: bytes) -> str:
    """Why a picture cannot be read; an empty text where it can."""
    try:
        decode(image)
    except UnreadableError as error:
        return str(error)
    return ""


def fit(picture: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """Scale the shorter side to `size` pixels and cut out the centre, uint8 (3, size, size)."""
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def encode_bmp(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode a picture, grey (H, W) or RGB (H, W, 3), without compression: every machine writes the same bytes."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="BMP")
    return out.getvalue()
