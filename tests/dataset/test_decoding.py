import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from secateur.dataset.images import UnreadableError, decode, encode_bmp, fit, problem, to_8_bits

RNG = np.random.default_rng(0)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, format=kind, **options)
    return out.getvalue()


def pixels(image: bytes) -> np.ndarray:
    return np.asarray(decode(image))


def grey(values_HW: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values_HW, np.uint8)[:, :, None], 3, axis=2)


NOISE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
LIGHT = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def test_modes_without_surprises():
    assert np.array_equal(pixels(encoded(Image.fromarray(NOISE))), NOISE)
    assert np.array_equal(pixels(encoded(Image.fromarray(LIGHT))), grey(LIGHT))
    assert np.array_equal(pixels(encoded(Image.fromarray(LIGHT > 99))), grey((LIGHT > 99) * 255))
    few = Image.fromarray(NOISE).quantize(16)
    assert np.array_equal(pixels(encoded(few)), np.asarray(few.getpalette()).reshape(-1, 3)[np.asarray(few)])


def test_transparent_pixels_are_white():
    for picture, colour in (
        (Image.fromarray(np.dstack([NOISE, ALPHA])), NOISE),
        (Image.fromarray(np.dstack([LIGHT, ALPHA]), "LA"), grey(LIGHT)),
    ):
        assert np.abs(pixels(encoded(picture)) - over_white(colour.astype(float), ALPHA)).max() <= 1
    few = Image.fromarray(NOISE).quantize(4)
    colours = np.asarray(few.getpalette()).reshape(-1, 3)[np.asarray(few)]
    for transparency, gone in ((2, np.asarray(few) == 2), (bytes([255, 0, 255, 255]), np.asarray(few) == 1)):
        expected = np.where(gone[..., None], 255, colours)
        assert np.array_equal(pixels(encoded(few, transparency=transparency)), expected)
    keyed = encoded(Image.fromarray(LIGHT), transparency=int(LIGHT[0, 0]))
    assert np.array_equal(pixels(keyed), grey(np.where(LIGHT[0, 0] == LIGHT, 255, LIGHT)))


def test_cmyk():
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, :, 0] = 255  # cyan
    assert np.abs(pixels(encoded(Image.fromarray(ink, "CMYK"), "TIFF")).astype(int) - [0, 255, 255]).max() == 0
    assert np.abs(pixels(encoded(Image.fromarray(ink, "CMYK"), "JPEG")).astype(int) - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(kind):
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert pixels(encoded(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 1, 1, 128, 255]


def test_long_numbers_and_fractions():
    def read(values, kind):
        return pixels(encoded(Image.fromarray(np.array([values], kind)), "TIFF"))[0, :, 0].tolist()

    assert read([0, 7, 255], np.int32) == [0, 7, 255]
    assert read([0, 257, 65535], np.int32) == [0, 1, 255]
    assert read([-100, 0, 100], np.int32) == [0, 128, 255]
    assert read([0.0, 0.5, 1.0], np.float32) == [0, 128, 255]
    assert read([0.0, 2.0, 255.0], np.float32) == [0, 2, 255]
    assert read([-1e9, 0.0, 1e9], np.float32) == [0, 128, 255]
    assert read([np.nan, 0.5, np.inf], np.float32) == [128, 128, 128]
    assert read([-3.0, -3.0], np.float32) == [0, 0]


@settings(max_examples=50)
@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_scaling_keeps_the_order(values_HW):
    scaled = to_8_bits(values_HW, "F").ravel()[np.argsort(values_HW, axis=None)]
    assert (np.diff(scaled.astype(int)) >= 0).all()


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_the_first_frame_counts(kind, options):
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "lime", "blue")]
    image = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (pixels(image) == [255, 0, 0]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = pixels(encoded(Image.fromarray(NOISE), exif=exif))
    turned = {1: NOISE, 2: NOISE[:, ::-1], 3: NOISE[::-1, ::-1], 4: NOISE[::-1], 5: NOISE.transpose(1, 0, 2),
              6: np.rot90(NOISE, -1), 7: NOISE[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(NOISE)}  # fmt: skip
    assert np.array_equal(stored, turned[orientation])


def test_broken_exif_does_not_matter():
    image = encoded(Image.fromarray(NOISE), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 7)
    assert np.array_equal(pixels(image), NOISE)


def bomb(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 9_000), (10_000, 9_000), (80_000_001, 1)])
def test_bombs_are_refused_before_they_are_unpacked(size):
    assert problem(bomb(*size)) == "it has more than 80,000,000 pixels"


def test_pillows_warning_does_not_leak(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb(10_000, 9_000))
    script = "import sys; from secateur.dataset.images import problem; print(problem(open(sys.argv[1], 'rb').read()))"
    ran = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "bomb.png"], capture_output=True, text=True, check=True
    )
    assert (ran.stdout, ran.stderr) == ("it has more than 80,000,000 pixels\n", "")


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_the_smallest_and_the_narrowest(size):
    assert fit(decode(encoded(Image.new("RGB", size, "red"))), 32).shape == (3, 32, 32)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
def test_what_is_cut_short_is_refused(kind):
    image = encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    assert problem(image) == ""
    assert problem(image[: len(image) // 2]).startswith("it does not decode: ")


@pytest.mark.parametrize(
    "image", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(UnreadableError, match="it does not decode: "):
        decode(image)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"]), st.randoms(use_true_random=False))
def test_damaged_bytes_give_a_picture_or_a_reason(kind, random):
    image = bytearray(encoded(Image.fromarray(NOISE), kind))
    for _ in range(random.randrange(1, 8)):
        image[random.randrange(len(image))] = random.randrange(256)
    reason = problem(bytes(image))
    assert reason.startswith("it ") if reason else decode(bytes(image)).mode == "RGB"


def test_what_we_encode_is_read():
    assert np.array_equal(pixels(encode_bmp(NOISE)), NOISE)
    assert np.array_equal(pixels(encode_bmp(LIGHT)), grey(LIGHT))
