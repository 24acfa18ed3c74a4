"""Power spectra of images and feature maps, and four kinds of noise to compare them under."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.fft import dctn

Noise = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_MAX_RINGS = 32  # up to frequency 1; a curve shows no more
_GAUSSIAN, _SHOT, _IMPULSE, _SPECKLE = 0.18, 12, 0.09, 0.35  # the third of five severities


def power_spectrum(maps: Array) -> tuple[np.ndarray, Array]:
    r"""Mean power at each spatial frequency: [B, H, W, C] to frequencies [N] and powers [B, N].

    The orthonormal two-dimensional DCT-II of every channel, squared and averaged over the channels, then over the
    coefficients (u, v) whose radius :math:`\sqrt{(u/H)^2 + (v/W)^2}` rounds to the same multiple of 1/min(H, W, 32). 1
    is the highest frequency of pixels along an axis; diagonals reach √2. Computed in float32.

    Reference: Hu et al., "Bi-volution", 2022, Figure 4. It does not define its average.
    """
    height, width = maps.shape[1:3]
    count = min(height, width, _MAX_RINGS)
    radius = np.hypot(np.arange(height)[:, None] / height, np.arange(width)[None] / width)
    rings, ring_of = np.unique(np.rint(radius * count).astype(int), return_inverse=True)
    ring_of = ring_of.ravel()
    weights = (ring_of[:, None] == np.arange(rings.size)) / np.bincount(ring_of)
    return rings / count, _weighted_power(maps, jnp.asarray(weights, jnp.float32))


@jax.jit
def _weighted_power(maps: Array, weights: Array) -> Array:
    """Sums of the coefficients' power, [B, H, W, C], with weights [H·W, N]: [B, N]."""
    power = (dctn(maps.astype(jnp.float32), axes=(1, 2), norm="ortho") ** 2).mean(-1)
    return power.reshape(len(maps), -1) @ weights


def gaussian_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of low light: normally distributed, the same everywhere."""
    return np.clip(images + rng.normal(0, _GAUSSIAN, images.shape), 0, 1)


def shot_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of single photons: Poisson distributed, stronger in bright areas."""
    return np.clip(rng.poisson(images * _SHOT) / _SHOT, 0, 1)


def impulse_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of bit errors: some values become 0 or 1."""
    hit, bright = rng.random(images.shape) < _IMPULSE, rng.random(images.shape) < 0.5
    return np.where(hit, bright, images)


def speckle_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise in proportion to the pixel."""
    return np.clip(images * (1 + rng.normal(0, _SPECKLE, images.shape)), 0, 1)


NOISES: dict[str, Noise] = {
    "Gaussian": gaussian_noise,
    "shot": shot_noise,
    "impulse": impulse_noise,
    "speckle": speckle_noise,
}
"""Functions of images in [0, 1] and a random generator.

Reference: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019, with its severities.
"""
