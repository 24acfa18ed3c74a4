"""Each operation against its formula on pixels, and against the arguments that timm publishes for its strength."""

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.transforms.operations import OPERATIONS, Canvas
from tests.ddf_jax.data.transforms.images import noise

CANVAS = Canvas(Image.Resampling.NEAREST, (124, 116, 104))
IMAGE = noise(20, 30)
GREY = np.round(IMAGE @ [0.299, 0.587, 0.114])


class Sign:
    """A generator that negates, or does not."""

    def __init__(self, negates: bool):
        self.random = lambda: 0.0 if negates else 1.0


def result(name: str, strength: float, *, negates: bool = False, image: np.ndarray = IMAGE) -> np.ndarray:
    rng: Any = Sign(negates)
    return np.asarray(OPERATIONS[name](Image.fromarray(image), strength, CANVAS, rng))


def blended(other: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(other + factor * (IMAGE.astype(np.float64) - other), 0, 255)


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("Invert", 3, 255 - IMAGE),
        ("Posterize", 7, IMAGE & 0b11000000),  # int(7 / 10 · 4) = 2 bits
        ("PosterizeIncreasing", 7, IMAGE & 0b11000000),
        ("PosterizeIncreasing", 3, IMAGE & 0b11100000),
        ("PosterizeIncreasing", 10, 0 * IMAGE),
        ("PosterizeOriginal", 6, IMAGE & 0b11111100),
        ("PosterizeOriginal", 10, IMAGE),
        ("Solarize", 4, np.where(IMAGE < 102, IMAGE, 255 - IMAGE)),  # int(4 / 10 · 256) = 102
        ("SolarizeIncreasing", 4, np.where(IMAGE < 154, IMAGE, 255 - IMAGE)),
        ("SolarizeAdd", 5, np.where(IMAGE < 128, np.minimum(255, IMAGE.astype(int) + 55), IMAGE)),
    ],
)
def test_operations_on_pixels_are_exact(name: str, strength: float, expected: np.ndarray):
    np.testing.assert_array_equal(result(name, strength), expected)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Brightness", np.zeros_like(IMAGE)),
        ("Contrast", np.full_like(IMAGE, round(GREY.mean()))),
        ("Color", np.repeat(GREY[..., None], 3, -1)),
    ],
)
def test_enhancements_are_blends(name: str, other: np.ndarray):
    for strength, factor in ((0, 0.1), (5, 1.0), (10, 1.9)):
        np.testing.assert_allclose(result(name, strength), blended(other, factor), atol=2)
    for strength, negates, factor in ((0, True, 1.0), (5, True, 0.55), (5, False, 1.45), (10, True, 0.1)):
        changed = result(f"{name}Increasing", strength, negates=negates)
        np.testing.assert_allclose(changed, blended(other, factor), atol=2)


def test_sharpness_is_a_blend_with_the_smoothed_image():
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    inner = sum(kernel[i, j] * IMAGE[i : i + 18, j : j + 28].astype(np.float64) for i in range(3) for j in range(3))
    expected = inner + 0.1 * (IMAGE[1:-1, 1:-1] - inner)
    np.testing.assert_allclose(result("Sharpness", 0)[1:-1, 1:-1], expected, atol=2)


def test_the_contrast_is_stretched_and_the_histogram_made_even():
    narrow = (50 + noise(40, 50) // 4).astype(np.uint8)
    stretched = result("AutoContrast", 0, image=narrow).astype(int)
    low, high = narrow.min((0, 1)).astype(int), narrow.max((0, 1)).astype(int)
    np.testing.assert_allclose(stretched, (narrow - low) * 255 / (high - low), atol=1)
    even = result("Equalize", 0, image=narrow)
    for channel in range(3):
        values = np.sort(narrow[..., channel].ravel())
        below = np.searchsorted(values, narrow[..., channel])  # pixels that are darker
        step = (values != values[-1]).sum() // 255
        np.testing.assert_array_equal(even[..., channel], np.minimum(255, (below + step // 2) // step))


@pytest.mark.parametrize("negates", [False, True])
def test_movements_leave_the_fill_at_the_border(negates: bool):
    sign = -1 if negates else 1
    y, x = np.mgrid[:20, :30]
    sources = {
        "TranslateX": (x + sign * round(0.45 * 30), y),  # 13.5 rounds to even, as the nearest pixel does
        "TranslateY": (x, y + sign * 9),
    }
    for name, (column, row) in sources.items():
        inside = (column >= 0) & (column < 30) & (row >= 0) & (row < 20)
        moved = result(name, 10, negates=negates)
        share = (moved == np.array(CANVAS.fill)).all(-1).mean()
        assert abs(share - (~inside).mean()) < 0.04
        if name == "TranslateY":
            np.testing.assert_array_equal(moved[inside], IMAGE[row[inside], column[inside]])
    sheared = result("ShearX", 10, negates=negates)
    np.testing.assert_array_equal(sheared[0, 5:-5], IMAGE[0, 5:-5])
    source = np.floor(0.5 + 10 + sign * 0.3 * 19.5).astype(int)
    np.testing.assert_array_equal(sheared[19, 10], IMAGE[19, source])
    np.testing.assert_array_equal(
        result("ShearY", 10, negates=negates).transpose(1, 0, 2)[10, 10],
        IMAGE[math.floor(0.5 + 10 + sign * 0.3 * 10.5), 10],
    )


def test_a_rotation_turns_by_three_degrees_for_each_unit_of_strength():
    turned = Image.fromarray(IMAGE).rotate(21, Image.Resampling.NEAREST, fillcolor=CANVAS.fill)
    np.testing.assert_array_equal(result("Rotate", 7), turned)
    back = Image.fromarray(IMAGE).rotate(-21, Image.Resampling.NEAREST, fillcolor=CANVAS.fill)
    np.testing.assert_array_equal(result("Rotate", 7, negates=True), back)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_takes_grey_images_and_every_strength(name: str):
    for strength in (0.0, 3.3, 10.0):
        assert result(name, strength, image=IMAGE[..., 0]).shape == (20, 30)
        assert result(name, strength).shape == IMAGE.shape
