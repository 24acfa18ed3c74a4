"""Power spectra and noise, against independent formulas."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from ddf_jax.inspect.spectra import NOISES, power_spectrum


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 6, 2), (1, 40, 33, 1)])
def test_powers_are_ring_means_of_the_dct(shape):
    maps = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    frequencies, powers = power_spectrum(jnp.asarray(maps))
    height, width = shape[1:3]
    rings: dict[int, list[np.ndarray]] = {}
    transformed = np.asarray(scipy.fft.dctn(maps.astype(np.float64), axes=(1, 2), norm="ortho"))
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
    assert frequencies[np.argmax(powers[0])] == pytest.approx(3 / 9)
    assert float(np.sort(powers[0])[-2]) < 1e-6
    frequencies, powers = power_spectrum(jnp.ones((1, 5, 6, 2), jnp.bfloat16))
    np.testing.assert_allclose(powers[0], [30, *[0] * (len(frequencies) - 1)], atol=1e-5)


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
