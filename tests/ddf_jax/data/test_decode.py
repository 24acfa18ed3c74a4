"""Image files and depth maps as arrays."""

import io
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from ddf_jax.data import decode
from ddf_jax.data.config import Decoding
from ddf_jax.data.decode import CorruptImageError, decode_depth, decode_image, encode_depth, image_to_array

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


@pytest.mark.parametrize(
    "mode", ["1", "L", "La", "LA", "P", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "I"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_that_pillow_opens_is_read(mode: str, channels: int):
    assert image_to_array(Image.new(mode, (4, 5)), channels).shape == (5, 4, channels)


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


def pgm(values: np.ndarray, maxval: int) -> bytes:
    return f"P5 {values.shape[1]} {values.shape[0]} {maxval}\n".encode() + values.astype(">u2").tobytes()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def png_16(values: np.ndarray, significant: int | None = None) -> bytes:
    """A grey or colour PNG of 16 bits, by hand: pillow writes no colour of 16 bits and no sBIT."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    height, width, *colours = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if colours else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    bits = b"" if significant is None else chunk(b"sBIT", bytes([significant] * (3 if colours else 1)))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + bits + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


RAMP = np.linspace(0, 1, 8 * 9).reshape(8, 9)
BYTES = (RAMP * 255.9999).astype(np.uint8)
TWELVE = (RAMP * 4095.999).astype(np.uint16)
COLOUR = np.stack([TWELVE, TWELVE[::-1], TWELVE.T.reshape(8, 9)], -1)


def tiff(values: np.ndarray, **tags: float) -> bytes:
    names = {"low": 280, "high": 281, "white_is_zero": 262}
    return encode(Image.fromarray(values), "tiff", tiffinfo={names[name]: value for name, value in tags.items()})


@pytest.mark.parametrize(
    ("data", "sample_max"),
    [
        pytest.param(pgm(TWELVE, 4095), None, id="PGM states its maxval"),
        pytest.param(pgm(TWELVE, 65535), 4095, id="PGM, given"),
        pytest.param(pgm(TWELVE, 8191), 4095, id="PGM of another maxval, given"),
        pytest.param(png_16(TWELVE, 12), None, id="PNG states its bits"),
        pytest.param(png_16(TWELVE << 4, 12), None, id="PNG states its bits and fills 16, as the standard has it"),
        pytest.param(png_16(TWELVE), 4095, id="PNG, given"),
        pytest.param(png_16(COLOUR, 12), None, id="colour PNG states its bits"),
        pytest.param(png_16(COLOUR), 4095, id="colour PNG, given"),
        pytest.param(png_16(COLOUR << 4), None, id="colour PNG of 16 bits"),
        pytest.param(tiff(TWELVE, high=4095), None, id="TIFF states its maximum"),
        pytest.param(tiff(TWELVE + 100, low=100, high=4195), None, id="TIFF states minimum and maximum"),
        pytest.param(tiff(TWELVE), 4095, id="TIFF, given"),
        pytest.param(tiff((RAMP * (2.0**31 - 1)).astype(np.int32)), None, id="32-bit integers"),
        pytest.param(tiff(TWELVE.astype(np.int32)), 4095, id="32-bit integers, given"),
        pytest.param(tiff(BYTES.astype(np.float32) / 255), 1, id="floats, given"),
        pytest.param(tiff(65535 - TWELVE * 16, white_is_zero=0), None, id="TIFF with white at 0"),
    ],
)
def test_samples_of_more_than_8_bits_keep_their_range(data: bytes, sample_max: float | None):
    image = decode_image(data, 3, Decoding(sample_max=sample_max))
    np.testing.assert_array_equal(image[..., 0], BYTES)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(decode_image(data, 1, Decoding(sample_max=sample_max))[..., 0], grey)


@pytest.mark.parametrize("values", [RAMP.astype(np.float32), np.full((3, 3), np.nan, np.float32)])
def test_floats_without_a_range_or_that_are_no_numbers_are_unreadable(values: np.ndarray):
    nan = bool(np.isnan(values).any())
    with pytest.raises(CorruptImageError, match="must be finite" if nan else r"does not state: set `data.sample_max`"):
        decode_image(tiff(values), 3, Decoding(sample_max=1.0 if nan else None))


def test_content_of_an_unlisted_format_starts_no_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(CorruptImageError, match="no known image format"):
        decode_image(eps, 3)


def test_a_large_image_is_converted_in_bands(monkeypatch: pytest.MonkeyPatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 50, 4), np.uint8))
    files = [encode(noise), encode(noise.convert("P"), transparency=3), encode(noise.convert("CMYK"), "tiff")]
    files.append(encode(noise.convert("RGB").convert("LAB"), "tiff"))
    whole = [decode_image(data, channels) for data in files for channels in (1, 3)]
    monkeypatch.setattr(decode, "_BAND", 333)
    for image, expected in zip(
        [decode_image(data, channels) for data in files for channels in (1, 3)], whole, strict=True
    ):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "tiff", "bmp", "gif", "ppm"])
def test_too_many_pixels_are_an_error_before_they_are_decoded(file_format: str, monkeypatch: pytest.MonkeyPatch):
    data = encode(Image.new("RGB", (40, 50)), file_format)
    assert decode_image(data, 3, Decoding(max_pixels=2000)).shape == (50, 40, 3)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("pixels were decoded"))
    with pytest.raises(CorruptImageError, match=r"40×50 pixels, more than `data.max_pixels` = 1999"):
        decode_image(data, 3, Decoding(max_pixels=1999))


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif"}], ids=["VP8", "VP8L", "VP8X"])
def test_a_webp_beyond_the_limit_is_not_even_opened(options: dict, monkeypatch: pytest.MonkeyPatch):
    data = encode(Image.new("RGB", (40, 50)), "webp", **options)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("the file was opened"))
    with pytest.raises(CorruptImageError, match="40×50 pixels, more than"):
        decode_image(data, 3, Decoding(max_pixels=1999))


def test_a_tile_beyond_the_limit_is_an_error_however_small_its_image():
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16384, 323: 16384, 324: 134, 325: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + zlib.compress(b"")
    with pytest.raises(CorruptImageError, match="16384×16384 pixels, more than"):
        decode_image(data, 1)


def test_a_file_that_states_more_pixels_than_pillow_allows_is_one_clear_error():
    header = encode(Image.new("L", (1, 1))).replace(struct.pack(">II", 1, 1), struct.pack(">II", 20_000, 20_000), 1)
    crc = struct.pack(">I", zlib.crc32(header[12:29]))
    with pytest.raises(CorruptImageError, match=r"more pixels than `data.max_pixels` = 89478485"):
        decode_image(header[:29] + crc + header[33:], 3)


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


def test_depth_survives_png_to_the_millimetre_and_is_unknown_where_it_saturates():
    depth = np.array([[0.0, 0.001, 1.2344], [9.9996, 65.535, 99.0]])
    np.testing.assert_allclose(decode_depth(encode_depth(depth).getvalue()), [[0, 0.001, 1.234], [10, 0, 0]])


@pytest.mark.parametrize("kind", ["L", "RGB", "JPEG", "cut", "empty"])
def test_depth_that_is_not_a_16_bit_png_is_refused_with_the_reason(kind: str):
    file = io.BytesIO()
    Image.new("RGB" if kind == "RGB" else "L", (20, 20)).save(file, "JPEG" if kind == "JPEG" else "PNG")
    whole = encode_depth(np.random.default_rng(0).random((20, 20))).getvalue()
    data = {"cut": whole[:-60], "empty": b""}.get(kind, file.getvalue())
    messages = {
        "L": "PNG of 8-bit grey, not grey of more than 8 bits",
        "RGB": "PNG of RGB, not",
        "JPEG": "JPEG of 8-bit",
        "empty": "empty file",
        "cut": "OSError",
    }
    with pytest.raises(CorruptImageError, match=messages[kind]):
        decode_depth(data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["png", "tiff"])
def test_an_image_can_be_read_as_stored_whatever_its_orientation(file_format: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    values = np.arange(1, 31, dtype=np.uint16).reshape(6, 5) * 1000
    data = encode(Image.fromarray(values), file_format, exif=exif)
    np.testing.assert_allclose(decode_depth(data), values / 1000, rtol=1e-6)
    np.testing.assert_array_equal(decode_image(data, 1, upright=False)[..., 0], values >> 8)
    assert decode_image(data, 1).shape == ((6, 5, 1) if orientation < 5 else (5, 6, 1))


LOW = np.array([[0.5, 1.25, 0.0], [3.0, 2.0, 0.125]])  # metres, one hole


@pytest.mark.parametrize(
    ("data", "units"),
    [
        pytest.param(png_16((LOW * 1000).astype(np.uint16)), None, id="PNG, millimetres"),
        pytest.param(png_16((LOW * 5000).astype(np.uint16)), 5000, id="PNG, given"),
        pytest.param(tiff((LOW * 1000).astype(np.uint16)), None, id="TIFF of 16 bits"),
        pytest.param(tiff(LOW.astype(np.float32)), None, id="TIFF of floats, metres"),
        pytest.param(tiff((LOW * 1000).astype(np.float32)), 1000, id="TIFF of floats, given"),
        pytest.param(pgm(LOW * 1000, 65535), None, id="PGM"),
        pytest.param(pgm(LOW * 1000, 3000), None, id="PGM of another maxval"),
        pytest.param(npy((LOW * 1000).astype(np.uint16)), None, id="NPY of integers"),
        pytest.param(npy(np.asfortranarray(LOW)[..., None]), None, id="NPY of floats with a last axis"),
        pytest.param(npy(np.where(LOW > 0, LOW, np.nan).astype(">f4")), None, id="NPY, NaN is a hole"),
        pytest.param(npy(np.where(LOW > 0, LOW, -1)), None, id="NPY, a negative number is a hole"),
        pytest.param(png_16(np.where(LOW > 0, LOW * 1000, 65535).astype(np.uint16)), None, id="65535 is a hole"),
    ],
)
def test_depth_of_any_format_is_in_metres(data: bytes, units: float | None):
    depth = decode_depth(data, units)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, LOW, rtol=1e-6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(np.array([object()])), "real numbers"),
        (npy(np.zeros(3)), r"array of float64 \(3,\), not of real numbers \[H, W\]"),
        (npy(np.zeros((3, 3)))[:-1], "ends before its array"),
        (b"\x93NUMPY\x09\x00", "unknown header"),
    ],
)
def test_an_npy_file_of_another_kind_is_refused_and_never_unpickled(data: bytes, message: str):
    with pytest.raises(CorruptImageError, match=message):
        decode_depth(data)
