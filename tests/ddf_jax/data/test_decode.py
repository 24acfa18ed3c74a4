"""Image files and depth maps as arrays."""

import io

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.decode import CorruptImageError, decode_depth, decode_image, encode_depth

GREY = (np.arange(6 * 5, dtype=np.uint8) * 8).reshape(6, 5)


def encode(image: Image.Image, file_format: str = "png", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_png_mode_becomes_grey_or_rgb(mode: str, channels: int):
    image = decode_image(encode(Image.fromarray(GREY).convert(mode)), channels)
    assert image.shape == (6, 5, channels)
    assert image.dtype == np.uint8
    if mode != "1":
        np.testing.assert_array_equal(image, np.repeat(GREY[..., None], channels, axis=-1))


def test_cmyk_jpeg_becomes_rgb():
    image = decode_image(encode(Image.new("CMYK", (5, 6), (0, 255, 255, 0)), "jpeg"), 3)
    assert image.shape == (6, 5, 3)
    assert (image[..., 0] > 200).all()
    assert (image[..., 1:] < 50).all()


def test_a_palette_with_transparency_decodes_without_a_warning():
    image = Image.fromarray(GREY).convert("P")
    decoded = decode_image(encode(image, transparency=bytes(range(256))), 3)
    np.testing.assert_array_equal(decoded, np.asarray(image.convert("RGB")))


def test_sixteen_bit_grey_keeps_its_upper_byte():
    image = Image.fromarray(GREY.astype(np.uint16) * 256 + 77)
    assert image.mode == "I;16"
    np.testing.assert_array_equal(decode_image(encode(image), 1)[..., 0], GREY)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(GREY), exif=exif), 1)[..., 0], np.rot90(GREY, -1))


@pytest.mark.parametrize("kind", ["empty", "text", "header only", "cut short"])
def test_broken_bytes_are_a_corrupt_image(kind: str):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    whole = encode(Image.fromarray(noise))
    broken = {"empty": b"", "text": b"no image", "header only": whole[:40], "cut short": whole[: len(whole) // 2]}
    reason = {"empty": "empty file", "text": "no known image format", "header only": ".+", "cut short": "truncated"}
    with pytest.raises(CorruptImageError, match=reason[kind]):
        decode_image(broken[kind], 1)


def test_depth_survives_png_to_the_millimetre():
    depth = np.array([[0.0, 0.001, 1.2344], [9.9996, 65.535, 99.0]])
    np.testing.assert_allclose(decode_depth(encode_depth(depth).getvalue()), [[0, 0.001, 1.234], [10, 65.535, 65.535]])


@pytest.mark.parametrize("kind", ["L", "RGB", "JPEG", "cut", "empty"])
def test_depth_that_is_not_a_16_bit_png_is_refused_with_the_reason(kind: str):
    file = io.BytesIO()
    Image.new("RGB" if kind == "RGB" else "L", (20, 20)).save(file, "JPEG" if kind == "JPEG" else "PNG")
    whole = encode_depth(np.random.default_rng(0).random((20, 20))).getvalue()
    data = {"cut": whole[:-60], "empty": b""}.get(kind, file.getvalue())
    messages = {
        "L": "PNG of 8-bit grey, not",
        "RGB": "PNG of RGB, not",
        "JPEG": "JPEG of 8-bit",
        "empty": "empty file",
        "cut": "OSError",
    }
    with pytest.raises(CorruptImageError, match=messages[kind]):
        decode_depth(data)
