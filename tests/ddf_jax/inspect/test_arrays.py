"""What the pictures show, as arrays: against independent formulas."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from ddf_jax.inspect.channel_filters import filter_grid
from ddf_jax.inspect.grad_cam import grad_cam
from ddf_jax.inspect.noise import NOISES
from ddf_jax.inspect.shared_kernels import kernel_matrix
from ddf_jax.inspect.spatial_filters import likeness, mosaic, tap_sums
from ddf_jax.inspect.spectrum import power_spectrum


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_grad_cam_is_the_weighted_sum_of_channels_above_0(dtype):
    features, gradients = (jnp.asarray(values(2, 5, 3, 4, seed=seed), dtype) for seed in (0, 1))
    cams = grad_cam(features, gradients)
    assert cams.dtype == jnp.float32
    for cam, of_image, slopes in zip(cams, np.float32(features), np.float32(gradients), strict=True):
        expected = np.zeros((5, 3))
        for channel in range(4):
            expected += slopes[..., channel].sum() / 15 * of_image[..., channel]
        expected = np.maximum(expected, 0)
        np.testing.assert_allclose(cam, expected / expected.max(), atol=1e-5)


def test_grad_cam_of_what_speaks_against_its_class_is_0():
    np.testing.assert_array_equal(grad_cam(jnp.ones((1, 2, 3, 4)), -jnp.ones((1, 2, 3, 4))), np.zeros((1, 2, 3)))


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 6, 2), (1, 40, 33, 1)])
def test_powers_are_ring_means_of_the_dct(shape):
    maps = values(*shape)
    frequencies, powers = power_spectrum(jnp.asarray(maps))
    height, width = shape[1:3]
    rings: dict[int, list[np.ndarray]] = {}
    transformed = scipy.fft.dctn(maps.astype(np.float64), axes=(1, 2), norm="ortho")
    most = min(height, width, 32)
    for u in range(height):
        for v in range(width):
            ring = round(((u / height) ** 2 + (v / width) ** 2) ** 0.5 * most)
            rings.setdefault(ring, []).append((transformed[:, u, v] ** 2).mean(-1))
    np.testing.assert_allclose(frequencies, np.array(sorted(rings)) / most)
    np.testing.assert_allclose(powers, np.stack([np.mean(rings[ring], 0) for ring in sorted(rings)], -1), rtol=1e-4)


def test_a_wave_has_its_power_at_its_frequency():
    wave = np.cos(np.pi * 3 * (np.arange(9) + 0.5) / 9)
    frequencies, powers = power_spectrum(jnp.asarray(np.broadcast_to(wave[:, None, None], (1, 9, 9, 1)), jnp.float32))
    assert frequencies[int(powers[0].argmax())] == pytest.approx(3 / 9)
    assert float(np.sort(powers[0])[-2]) < 1e-6
    frequencies, powers = power_spectrum(jnp.ones((1, 5, 6, 2), jnp.bfloat16))
    np.testing.assert_allclose(powers[0], [30, *[0] * (len(frequencies) - 1)], atol=1e-5)


def test_a_filter_is_drawn_where_its_pixel_is():
    filters = values(2, 3, 5, 4, 9)
    drawn = mosaic(filters)
    assert drawn.shape == (2, 4, 9, 15)
    np.testing.assert_array_equal(drawn[1, 2, 3:6, 12:15], filters[1, 1, 4, 2].reshape(3, 3))
    np.testing.assert_allclose(tap_sums(filters)[1, 2, 1, 4], sum(filters[1, 1, 4, 2]), rtol=1e-5)


def test_colours_are_alike_where_filters_are():
    filters = values(2, 3, 4, 2, 9)
    filters[1, 2, 3] = filters[0, 0, 0]
    colours = likeness(filters)
    assert colours.shape == (2, 3, 4, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    np.testing.assert_allclose(colours[1, 2, 3], colours[0, 0, 0])
    # Three components hold everything about filters of three values in all, so distances are kept.
    few = values(1, 4, 5, 3, 1)
    ratios = distances(likeness(few)) / distances(few)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)


def distances(points: np.ndarray) -> np.ndarray:
    """Between any two of twenty points in space."""
    apart = points.reshape(20, 1, 3) - points.reshape(1, 20, 3)
    return np.linalg.norm(apart, axis=-1)[np.triu_indices(20, 1)]


def test_the_same_filter_everywhere_is_grey():
    np.testing.assert_allclose(likeness(np.ones((1, 2, 1, 1, 9))), 0.5)


def test_channels_are_drawn_row_by_row_and_missing_ones_are_nan():
    filters = values(2, 9, 7)
    grid = filter_grid(filters)
    assert grid.shape == (2, 9, 9)
    np.testing.assert_array_equal(grid[1, 3:6, 3:6], filters[1, :, 4].reshape(3, 3).astype(np.float64))
    assert np.isnan(grid[0]).sum() == 2 * 9


def test_a_kernel_is_drawn_with_outputs_down_and_inputs_across():
    kernels = values(2, 3, 3, 4, 5)
    drawn = kernel_matrix(kernels)
    assert drawn.shape == (2, 15, 12)
    np.testing.assert_array_equal(drawn[1, 12:15, 6:9], kernels[1, :, :, 2, 4])
    np.testing.assert_array_equal(kernel_matrix(kernels[:, :1, :1])[0], kernels[0, 0, 0].T)


@pytest.mark.parametrize("name", NOISES)
def test_noise_stays_in_range_keeps_the_mean_and_repeats_with_its_generator(name):
    grey = np.full((1, 100, 100, 3), 0.5, np.float32)
    noisy = NOISES[name](grey, np.random.default_rng(0))
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    assert noisy.std() > 0.1
    assert noisy.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(noisy, NOISES[name](grey, np.random.default_rng(0)))


def test_only_gaussian_and_impulse_noise_reach_black():
    black = np.zeros((1, 30, 30, 1), np.float32)
    changed = {name for name, noise in NOISES.items() if noise(black, np.random.default_rng(0)).any()}
    assert changed == {"Gaussian", "impulse"}
