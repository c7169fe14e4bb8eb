"""Reading pictures."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def decode(image: bytes) -> Image.Image:
    """Decode a picture to RGB, turned upright as its EXIF data say.

    Raises:
        OSError, ValueError, SyntaxError or Image.DecompressionBombError: The bytes are no picture that can be read.
    """
    with Image.open(io.BytesIO(image)) as opened:
        opened.load()
        return ImageOps.exif_transpose(opened).convert("RGB")


def is_readable(image: bytes) -> bool:
    """Whether a picture decodes; one that is cut short does not."""
    try:
        decode(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True


def fit(picture: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """Scale the shorter side to `size` pixels and cut out the centre, uint8 (3, size, size)."""
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def encode_bmp(pixels_HW: npt.NDArray[np.uint8]) -> bytes:
    """Encode a grey picture without compression, so that every machine writes the same bytes."""
    out = io.BytesIO()
    Image.fromarray(pixels_HW).save(out, format="BMP")
    return out.getvalue()
