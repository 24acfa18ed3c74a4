import tracemalloc
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.transforms import (
    Normalize,
    RandomAffine,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomShift,
    ResizeAndCenterCrop,
    evaluation_transforms,
    training_transforms,
)

RANDOM = [RandomResizedCrop(24), RandomHorizontalFlip(), RandomShift(), RandomAffine()]


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(300, 400), (401, 300), (256, 256), (90, 120)])
def test_large_evaluation_images_are_resized_to_8_7_and_cropped(height: int, width: int):
    image = noise(height, width)
    short = min(height, width)
    resized = Image.fromarray(image).resize((width * 256 // short, height * 256 // short), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    np.testing.assert_array_equal(ResizeAndCenterCrop(224).map({"image": image})["image"], expected)


def test_small_evaluation_images_lose_nothing():
    image = noise(8, 8, 1)
    np.testing.assert_array_equal(ResizeAndCenterCrop(8).map({"image": image})["image"], image)
    doubled = ResizeAndCenterCrop(16).map({"image": image})["image"]
    expected = Image.fromarray(image[..., 0]).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(doubled[..., 0], np.asarray(expected))


@pytest.mark.parametrize("height", [1, 2, 7, 31, 32, 33])
@pytest.mark.parametrize("width", [1, 5, 32, 47])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pipeline_gives_squares_of_the_size(height: int, width: int, channels: int):
    rng = np.random.default_rng(0)
    for augment in ("none", "shift", "affine", "imagenet"):
        example: Any = {"image": noise(height, width, channels)}
        transforms: list[Any] = training_transforms(DataConfig(image_size=32, augment=augment), channels)
        for transform in transforms:
            example = transform.map(example) if hasattr(transform, "map") else transform.random_map(example, rng)
        assert example["image"].shape == (32, 32, channels)
        assert example["image"].dtype == np.float32


@hypothesis.given(size=st.integers(1, 300), height=st.integers(1, 400), width=st.integers(1, 400), square=st.booleans())
@hypothesis.example(size=32, height=49, width=49, square=True)
@hypothesis.example(size=28, height=1, width=50_000, square=False)
@hypothesis.settings(max_examples=200, deadline=None)
def test_any_image_becomes_a_square_of_the_size_in_evaluation(size: int, height: int, width: int, square: bool):
    image = np.zeros((height, height if square else width, 1), np.uint8)
    assert ResizeAndCenterCrop(size).map({"image": image})["image"].shape == (size, size, 1)


@pytest.mark.parametrize("size", [28, 32, 95, 96, 224])
def test_a_square_image_is_resized_to_the_square_whatever_its_side(size: int):
    for side in range(1, 400):
        assert ResizeAndCenterCrop(size).map({"image": np.zeros((side, side, 1), np.uint8)})["image"].shape[1] == size


def test_an_image_that_is_long_and_thin_takes_little_memory():
    image = np.zeros((1, 200_000, 3), np.uint8)  # its shorter side at 256: 256 x 51,200,000 pixels, 39 GB
    tracemalloc.start()
    ResizeAndCenterCrop(224).map({"image": image})
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


@pytest.mark.parametrize("transform", RANDOM, ids=lambda transform: type(transform).__name__)
def test_random_transforms_are_pure_functions_of_the_generator(transform):
    image = noise(40, 30)
    before = image.copy()
    results = [transform.random_map({"image": image}, np.random.default_rng(seed))["image"] for seed in (1, 1, 2, 3, 4)]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(results[0], results[1])
    assert any(not np.array_equal(results[0], other) for other in results[2:])


def test_random_crops_keep_to_their_area_ratio_and_image():
    crop, rng = RandomResizedCrop(8, area=(0.2, 0.9)), np.random.default_rng(0)
    for _ in range(200):
        top, left, height, width = crop._box(300, 400, rng)
        assert 0 <= top <= 300 - height
        assert 0 <= left <= 400 - width
        assert 0.19 < height * width / (300 * 400) < 0.91
        assert 0.74 < width / height < 1.35


@pytest.mark.parametrize(("shape", "box"), [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10))])
def test_images_no_crop_fits_into_get_the_largest_allowed_centre(shape: tuple[int, int], box: tuple[int, ...]):
    assert RandomResizedCrop(8, area=(0.9, 1.0))._box(shape[0], shape[1], np.random.default_rng(0)) == box


def test_a_random_crop_is_the_resized_box():
    image = noise(50, 60)
    crop = RandomResizedCrop(24)
    top, left, height, width = crop._box(50, 60, np.random.default_rng(5))
    expected = Image.fromarray(image[top : top + height, left : left + width]).resize(
        (24, 24), Image.Resampling.BILINEAR
    )
    result = crop.random_map({"image": image}, np.random.default_rng(5))["image"]
    np.testing.assert_array_equal(result, np.asarray(expected))


def test_flips_mirror_left_and_right_half_of_the_time():
    image, rng = noise(4, 5), np.random.default_rng(0)
    results = [RandomHorizontalFlip().random_map({"image": image}, rng)["image"] for _ in range(400)]
    flipped = [np.array_equal(result, image[:, ::-1]) for result in results]
    kept = [np.array_equal(result, image) for result in results]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 160 < sum(flipped) < 240


def test_shifts_reach_an_eighth_of_the_side_each_way_and_no_further():
    image, rng = noise(16, 16, 1), np.random.default_rng(0)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    shifts = {(y, x): padded[y : y + 16, x : x + 16].tobytes() for y in range(5) for x in range(5)}
    seen = {RandomShift().random_map({"image": image}, rng)["image"].tobytes() for _ in range(400)}
    assert seen == set(shifts.values())


def test_normalisation_is_that_of_the_formula():
    image = noise(4, 5)
    expected = (image.astype(np.float64) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    result = Normalize(3).map({"image": image, "label": 7})
    assert result["label"] == 7
    assert result["image"].dtype == np.float32
    np.testing.assert_allclose(result["image"], expected, rtol=1e-5, atol=1e-6)


def test_evaluation_has_no_chance_in_it():
    assert all(not hasattr(transform, "random_map") for transform in evaluation_transforms(DataConfig(), 3))


def test_an_unknown_augmentation_names_the_known_ones():
    with pytest.raises(ValueError, match="must be one of none, shift, affine, imagenet, got 'mixup'"):
        training_transforms(DataConfig(augment="mixup"), 3)


class Extreme:
    """A generator that draws the upper end of every interval."""

    def uniform(self, low, high, size=None):
        return high if size is None else np.full(size, high)


EXTREME: Any = Extreme()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_affine_map_turns_scales_and_moves(channels: int):
    image = noise(8, 8, channels)

    def mapped(**options: float) -> np.ndarray:
        fixed = {"degrees": 0.0, "scale": 1.0, "share": 0.0} | options
        return RandomAffine(**fixed).random_map({"image": image}, EXTREME)["image"]

    np.testing.assert_array_equal(mapped(), image)
    np.testing.assert_allclose(mapped(degrees=90.0), np.rot90(image, -1), atol=1)
    moved = np.zeros_like(image)
    moved[1:, 1:] = image[:-1, :-1]
    np.testing.assert_array_equal(mapped(share=1 / 8), moved)
    flat = RandomAffine(degrees=0.0, scale=2.0, share=0.0).random_map({"image": np.full_like(image, 9)}, EXTREME)
    np.testing.assert_array_equal(flat["image"], np.full_like(image, 9))
    np.testing.assert_allclose(mapped(scale=2.0)[4, 4], np.average(image[3:5, 3:5], (0, 1), [[1, 3], [3, 9]]), atol=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_images_become_pixels_again(channels: int):
    image = noise(8, 6, channels)
    normalize = Normalize(channels)
    np.testing.assert_allclose(normalize.undo(normalize.map({"image": image})["image"]), image / 255, atol=1e-6)
