"""Corruptions against their published parameters and definitions."""

import io

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.corruptions import EXTRA, FAMILIES, SEVERITIES, corrupt
from ddf_jax.data.corruptions.blur import disk
from ddf_jax.data.corruptions.images import motion_blurred, plasma, zoomed
from ddf_jax.data.corruptions.severities import PARAMETERS, SIDES, nearest_side
from ddf_jax.data.datasets.rendering import render_room
from ddf_jax.errors import UserError

NAMES = [name for names in FAMILIES.values() for name in names]
GREY = np.full((64, 64, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return render_room(np.random.default_rng(3), 64, 64).image


def samples(image: np.ndarray, name: str, severity: int, **seeds: int) -> np.ndarray:
    return corrupt(image, name, severity, **seeds) / 255


def test_there_are_fifteen_corruptions_and_four_more_with_five_severities_at_three_sizes():
    assert len(NAMES) == len(set(NAMES)) == 19
    assert PARAMETERS.keys() == set(NAMES)
    assert len(set(NAMES) - set(EXTRA)) == 15
    assert all(len(table[side]) == 5 for table in PARAMETERS.values() for side in SIDES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(8, 9, 1), (33, 47, 3)])
def test_a_corruption_keeps_dtype_and_shape_and_is_decided_by_its_seed_index_name_and_severity(name, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    kept = image.copy()
    for severity in (1, 4):
        corrupted = corrupt(image, name, severity, seed=3, index=5)
        assert (corrupted.dtype, corrupted.shape) == (np.uint8, shape)
        np.testing.assert_array_equal(corrupted, corrupt(image, name, severity, seed=3, index=5))
    np.testing.assert_array_equal(image, kept)
    if name in (*FAMILIES["noise"], "glass_blur", "motion_blur", "frost", "fog", "snow", "elastic_transform"):
        others = [corrupt(image, name, 4, seed=3, index=6), corrupt(image, name, 4, seed=4, index=5)]
        assert all((corrupted != other).any() for other in others)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("saturate", "spatter", "elastic_transform")])
def test_damage_grows_with_severity(picture, name):
    """In the mean over pictures; three corruptions change their kind with the severity."""

    def damage(image: np.ndarray, severity: int, index: int) -> float:
        corrupted = corrupt(image, name, severity, index=index).astype(float)
        if name == "frost":  # whose brightness is that of the picture: what is unlike the picture counts
            return 1 - np.corrcoef(corrupted.ravel(), image.ravel())[0, 1]
        return np.abs(corrupted - image).mean()

    pictures = [np.roll(picture, 9 * shift, 1) for shift in range(4)]
    means = [np.mean([damage(image, severity, i) for i, image in enumerate(pictures)]) for severity in SEVERITIES]
    assert 0 < means[0] < means[2] < means[4]
    if name not in ("frost", "snow", "fog", "glass_blur"):
        assert means == sorted(means)


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.04), (3, 0.12)])
def test_gaussian_noise_has_the_published_deviation(severity, deviation):
    noise = samples(GREY, "gaussian_noise", severity) - 128 / 255
    assert noise.std() == pytest.approx(deviation, rel=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.01)


def test_shot_and_speckle_noise_grow_with_the_light():
    """With the deviations √(x / photons) and x · deviation."""
    for level in (40, 160):
        light = level / 255
        image = np.full((64, 64, 3), level, np.uint8)
        assert samples(image, "shot_noise", 3).std() == pytest.approx((light / 50) ** 0.5, rel=0.03)
        assert samples(image, "speckle_noise", 1).std() == pytest.approx(light * 0.15, rel=0.03)


def test_impulse_noise_is_salt_and_pepper_in_equal_parts():
    noise = corrupt(GREY, "impulse_noise", 5)
    assert set(np.unique(noise)) == {0, 128, 255}
    assert (noise != 128).mean() == pytest.approx(0.14, rel=0.1)
    assert (noise == 0).sum() == pytest.approx((noise == 255).sum(), rel=0.2)


@pytest.mark.parametrize(("side", "qualities"), [(32, (80, 65, 58, 50, 40)), (224, (25, 18, 15, 10, 7))])
def test_jpeg_compression_has_the_published_qualities(side, qualities):
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    for severity in (1, 5):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=qualities[severity - 1])
        expected = np.asarray(Image.open(file))
        np.testing.assert_array_equal(corrupt(image, "jpeg_compression", severity), expected)


def test_contrast_brightness_and_saturation_are_those_of_their_formulas(picture):
    x = picture / 255
    low = samples(picture, "contrast", 2)
    np.testing.assert_allclose(low.std((0, 1)), 0.3 * x.std((0, 1)), rtol=0.01)
    np.testing.assert_allclose(low.mean((0, 1)), x.mean((0, 1)), atol=0.002)
    bright = samples(picture, "brightness", 2)
    np.testing.assert_allclose(bright.max(-1), np.minimum(x.max(-1) + 0.2, 1), atol=0.003)

    def saturation(rgb):
        return 1 - rgb.min(-1) / np.maximum(rgb.max(-1), 1e-9)

    light = x.max(-1) > 0.3  # in the dark, levels are rounded coarsely
    for severity, (factor, added) in ((1, (0.3, 0)), (4, (5, 0.1))):
        found, expected = saturation(samples(picture, "saturate", severity)), saturation(x) * factor + added
        np.testing.assert_allclose(found[light], np.clip(expected, 0, 1)[light], atol=0.02)


def test_pixelate_leaves_boxes_of_one_colour(picture):
    boxes = corrupt(picture, "pixelate", 5).reshape(32, 2, 32, 2, 3)  # half of 64 pixels
    np.testing.assert_array_equal(boxes, np.broadcast_to(boxes[:, :1, :, :1], boxes.shape))
    means = picture.reshape(32, 2, 32, 2, 3).mean((1, 3))
    np.testing.assert_allclose(boxes[:, 0, :, 0], means, atol=1)


@pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur", "motion_blur", "glass_blur", "zoom_blur"])
def test_a_blur_keeps_a_plain_picture_and_most_of_the_mean(picture, name):
    np.testing.assert_array_equal(corrupt(GREY, name, 5), GREY)
    blurred = corrupt(picture, name, 5).astype(float)
    assert blurred.mean() == pytest.approx(picture.mean(), rel=0.05)
    assert np.abs(np.diff(blurred, axis=0)).mean() < 0.9 * np.abs(np.diff(picture.astype(float), axis=0)).mean()


def test_the_blurs_have_the_published_radii():
    point = np.zeros((64, 64, 3), np.uint8)
    point[32, 32] = 255
    rows, columns = np.nonzero(samples(point, "defocus_blur", 5)[..., 0] > 0.5 / 29)  # 29 pixels lie within 3
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (29, 35, 29, 35)
    for radius in (0.5, 3, 10):
        assert disk(radius, 0.5).sum() == pytest.approx(1)
    spread = corrupt(point, "gaussian_blur", 5)[..., 0].astype(float)
    variance = (spread.sum(1) * (np.arange(64) - 32) ** 2).sum() / spread.sum()
    assert variance == pytest.approx(1.5**2, rel=0.1)


def test_motion_blur_is_half_a_gaussian_along_its_direction():
    line = np.zeros((9, 32))
    line[4, 20] = 1.0
    weights = np.exp(-(np.arange(7) ** 2) / (2 * 2.0**2))
    expected = np.zeros_like(line)
    expected[4, 14:21] = (weights / weights.sum())[::-1]
    np.testing.assert_allclose(motion_blurred(line, 3, 2.0, 0.0), expected, atol=1e-12)
    falling = motion_blurred(line.T, 3, 2.0, 90.0)
    np.testing.assert_allclose(falling, expected.T, atol=1e-12)


def test_zooming_by_one_changes_nothing_and_by_two_doubles_the_centre():
    ramp = np.linspace(0, 1, 33)[:, None, None] * np.ones((33, 33, 3))
    np.testing.assert_allclose(zoomed(ramp, 1.0), ramp, atol=1e-12)
    slope = np.diff(zoomed(ramp, 2.0)[:, 0, 0])
    np.testing.assert_allclose(slope, (1 / 32) * 16 / 33, rtol=1e-6)  # 17 samples become 34


def test_glass_blur_moves_pixels_no_farther_than_published(picture):
    """Before the blurs, whose σ of 0.1 changes nothing."""
    places = np.mgrid[:64, :64].transpose(1, 2, 0).astype(np.uint8)
    image = np.concatenate([places, np.zeros((64, 64, 1), np.uint8)], -1)
    moved = np.abs(corrupt(image, "glass_blur", 1).astype(int) - image)
    assert (moved > 0).mean() > 0.2
    steps = np.sort(moved[..., 0].ravel())
    assert steps[int(0.9 * len(steps))] <= 2
    flat = corrupt(image, "glass_blur", 1).reshape(-1, 3)
    assert {*map(tuple, flat.tolist())} == {*map(tuple, image.reshape(-1, 3).tolist())}  # swapped, none lost


def test_a_plasma_fills_its_range_and_is_smoother_with_more_decay():
    clouds = [plasma(40, 60, decay, np.random.default_rng(0)) for decay in (1.4, 3.0)]
    for cloud in clouds:
        assert cloud.shape == (40, 60)
        assert cloud.min() >= 0
        assert 0.5 < cloud.max() <= 1
    rough, smooth = (np.abs(np.diff(cloud, axis=0)).mean() for cloud in clouds)
    assert smooth < 0.6 * rough


def test_weather_whitens_and_mud_darkens(picture):
    for name in ("snow", "frost"):
        assert corrupt(picture, name, 3).mean() > picture.mean() + 10
    white = np.full((64, 64, 3), 255, np.uint8)
    mud = corrupt(white, "spatter", 5)
    assert {tuple(colour) for colour in mud.reshape(-1, 3).tolist()} > {(255, 255, 255)}
    assert mud.min() < 120
    assert corrupt(np.zeros_like(GREY), "spatter", 2).max() > 20  # water is lit
    spread = corrupt(picture, "fog", 3)
    assert spread.max() <= picture.max()


def test_the_elastic_transform_keeps_the_colours_and_moves_them(picture):
    warped = corrupt(picture, "elastic_transform", 5).astype(float)
    assert np.abs(warped - picture).mean() > 3
    assert warped.mean() == pytest.approx(picture.mean(), rel=0.1)
    np.testing.assert_array_equal(corrupt(GREY, "elastic_transform", 3), GREY)


@pytest.mark.parametrize(
    ("size", "side"),
    [((8, 8), 32), ((44, 90), 32), ((46, 46), 64), ((96, 120), 64), ((128, 128), 224), ((900, 800), 224)],
)
def test_the_parameters_are_those_of_the_nearest_side(size, side):
    assert nearest_side(*size) == side


def test_what_cannot_be_corrupted_is_an_error():
    with pytest.raises(UserError, match=r"`name` must be one of gaussian_noise, .*, got 'rain'"):
        corrupt(GREY, "rain", 1)
    with pytest.raises(UserError, match="`severity` must be 1, 2, 3, 4 or 5, got 6"):
        corrupt(GREY, "snow", 6)
    with pytest.raises(UserError, match=r"must be uint8 \[H, W, 1 or 3\] of 8 pixels or more a side, got float64"):
        corrupt(GREY / 255, "snow", 1)
