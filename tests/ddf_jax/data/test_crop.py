"""Crops that are known before the image is decoded."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.config import Decoding
from ddf_jax.data.crop import Box, Crop, to_array
from ddf_jax.data.decode import CorruptImageError, TooManyPixelsError, decode_crop, decode_image
from ddf_jax.data.transforms import RandomResizedCrop
from tests.ddf_jax.data.transforms.images import noise, smooth

BOX = Box(30, 50, 120, 160)


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    if "orientation" in options:
        options["exif"] = exif = Image.Exif()
        exif[0x0112] = options.pop("orientation")
    Image.fromarray(pixels).convert(options.pop("mode", "RGB")).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"mode": "L"}),
        ("JPEG", {"mode": "CMYK"}),
        ("JPEG", {"orientation": 1}),
        ("JPEG", {"orientation": 6}),
        ("PNG", {}),
        ("PNG", {"mode": "P"}),
        ("PNG", {"mode": "RGBA"}),
        ("WEBP", {}),
        ("TIFF", {"orientation": 3}),
    ],
    ids=str,
)
def test_a_crop_is_that_of_the_decoded_image(kind: str, options: dict[str, Any], channels: int):
    data = encoded(smooth(200, 240), kind, **dict(options))
    for resampling in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        crop = Crop(lambda height, width: BOX if width > height else Box(50, 30, 160, 120), 64, resampling)
        expected = crop.of_array(decode_image(data, channels))
        np.testing.assert_array_equal(to_array(decode_crop(data, channels, crop)), expected)


@pytest.mark.parametrize(
    ("side", "scale"), [(120, 1), (127, 1), (128, 2), (255, 2), (256, 4), (511, 4), (512, 8), (1100, 8)]
)
def test_a_draft_is_decoded_at_the_smallest_scale_at_which_the_crop_has_the_pixels(side: int, scale: int):
    data = encoded(smooth(1103, 1201), "JPEG", quality=95)
    crop = Crop(lambda *_: Box(3, 70, side, side + 30), 64, draft=True)
    with Image.open(io.BytesIO(data)) as image:
        drafted = to_array(crop.of_file(image)).astype(int)
        assert image.size == (-(-1201 // scale), -(-1103 // scale))
    exact = to_array(decode_crop(data, 3, crop._replace(draft=False))).astype(int)
    assert np.abs(drafted - exact).mean() < 2
    assert (drafted == exact).all() == (scale == 1)


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"progressive": True}], ids=str
)
def test_lower_rows_are_left_out_and_those_above_have_their_pixels(options: dict[str, Any], monkeypatch: Any):
    pixels = noise(200, 120)
    data = encoded(pixels, "JPEG", **options)
    whole, found = decode_image(data, 3), []
    opened = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: found.append(opened(*args, **kwargs)) or found[-1])
    for bottom in (1, 30, 31, 32, 33, 150, 190):
        crop = Crop(lambda *_, bottom=bottom: Box(0, 0, bottom, 120), 64, Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(to_array(decode_crop(data, 3, crop)), crop.of_array(whole))
        block = 8 if "subsampling" in options else 16
        expected = 200 if "progressive" in options else min(200, (-(-bottom // block) + 1) * block)
        assert found[-1].height == expected


def test_a_file_that_ends_below_the_crop_is_unreadable_all_the_same():
    data = encoded(noise(200, 120), "JPEG")
    crop = Crop(lambda *_: Box(0, 0, 20, 120), 64)
    for share in (0.3, 0.9):
        with pytest.raises(CorruptImageError, match="truncated"):
            decode_crop(data[: int(share * len(data))], 3, crop)


def test_a_draft_of_what_cannot_be_drafted_is_exact():
    pixels = smooth(300, 300)
    crop = Crop(lambda *_: Box(0, 0, 300, 300), 32, draft=True)
    for data in (encoded(pixels, "PNG"), encoded(pixels, "JPEG", **{"orientation": 6})):
        expected = crop.of_array(decode_image(data, 3))
        np.testing.assert_array_equal(to_array(decode_crop(data, 3, crop)), expected)


@pytest.mark.parametrize("options", [{}, {"orientation": 6}, {"mode": "CMYK"}], ids=str)
def test_a_random_crop_of_a_file_is_drawn_once(options: dict[str, Any]):
    data = encoded(noise(200, 120), "JPEG", **dict(options))
    random = RandomResizedCrop(32, interpolation="random")
    drawn, again = np.random.default_rng(3), np.random.default_rng(3)
    found = to_array(decode_crop(data, 3, random.crop(drawn)))
    np.testing.assert_array_equal(found, random.crop(again).of_array(decode_image(data, 3)))
    assert drawn.random() == again.random()


def test_the_limit_of_pixels_is_that_of_the_whole_image():
    crop = Crop(lambda *_: Box(0, 0, 8, 8), 8)
    with pytest.raises(TooManyPixelsError, match="120×200 pixels"):
        decode_crop(encoded(noise(200, 120), "JPEG"), 3, crop, Decoding(max_pixels=120 * 199))
