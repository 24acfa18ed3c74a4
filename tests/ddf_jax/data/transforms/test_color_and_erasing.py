import colorsys
from typing import Any

import numpy as np
import pytest

from ddf_jax.data.crop import to_array
from ddf_jax.data.transforms import ColorJitter, RandomErasing
from tests.ddf_jax.data.transforms.images import noise, smooth


class Fixed:
    """A generator with one order and one number."""

    def __init__(self, order: list[int], value: float):
        self.permutation, self.uniform = lambda _: order, lambda *_: value


def jittered(image: np.ndarray, strength: float, hue: float, order: list[int], value: float) -> np.ndarray:
    rng: Any = Fixed(order, value)
    return to_array(ColorJitter(strength, hue).random_map({"image": image}, rng)["image"])


def test_jitter_multiplies_brightness_contrast_and_saturation():
    image = smooth(20, 30)
    grey = np.round(image @ [0.299, 0.587, 0.114])
    others = [np.zeros(image.shape), np.full(image.shape, grey.mean().round()), np.repeat(grey[..., None], 3, -1)]
    for kind, other in enumerate(others):
        expected = np.clip(other + 0.6 * (image - other), 0, 255)
        np.testing.assert_allclose(jittered(image, 0.4, 0.0, [kind], 0.6), expected, atol=2)


def test_the_hue_turns_and_nothing_else_does():
    image = smooth(12, 12)
    turned = jittered(image, 0.0, 0.3, [3], 0.25)
    for before, after in zip(image.reshape(-1, 3) / 255, turned.reshape(-1, 3) / 255, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        expected = colorsys.hsv_to_rgb((hue + 63 / 256) % 1, saturation, value)
        np.testing.assert_allclose(after, expected, atol=0.05)
    np.testing.assert_array_equal(jittered(image[..., :1], 0.0, 0.3, [3], 0.25), image[..., :1])


@pytest.mark.parametrize("mode", ["constant", "color", "pixel"])
def test_a_rectangle_is_erased_with_the_probability(mode: Any):
    image, rng = np.full((64, 48, 3), 7.0, np.float32), np.random.default_rng(0)
    areas, noises = [], []
    for _ in range(400):
        erased = RandomErasing(0.25, mode).random_map({"image": image}, rng)["image"]
        changed = (erased != 7).any(-1)
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            box = erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert changed.sum() == box[..., 0].size, "not a rectangle"
            assert 0.25 < box.shape[0] / box.shape[1] < 4
            areas.append(changed.mean())
            noises.append(box.reshape(-1, 3))
    assert (image == 7).all()
    assert 70 < len(areas) < 130
    assert 0.015 < min(areas) < 0.06 < 0.28 < max(areas) < 0.35
    pixels = np.concatenate(noises)
    assert pixels.dtype == np.float32
    if mode == "constant":
        assert not pixels.any()
    else:
        colors = [len(np.unique(noise, axis=0)) for noise in noises]
        assert (max(colors) == 1) == (mode == "color")
        assert abs(pixels.std() - 1) < (0.3 if mode == "color" else 0.02)


def test_a_noise_image_is_changed_by_jitter_and_only_its_copy():
    image = noise(8, 8)
    before = image.copy()
    changed = [
        to_array(ColorJitter(0.4, 0.1).random_map({"image": image}, np.random.default_rng(s))["image"])
        for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(changed[0], changed[1])
    assert (changed[0] != changed[2]).any()
