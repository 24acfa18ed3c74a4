"""Noise: four corruptions of each sample of a picture by itself."""

import numpy as np


def gaussian_noise(x: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """`x + N(0, deviation²)`: little light."""
    return x + rng.normal(0, deviation, x.shape)


def shot_noise(x: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    """`Poisson(photons · x) / photons`: light comes in photons."""
    return rng.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A share of the samples becomes 0 or 1, with equal chances: salt and pepper."""
    hit = rng.random(x.shape) < share
    return np.where(hit, rng.random(x.shape) < 0.5, x)


def speckle_noise(x: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """`x · (1 + N(0, deviation²))`: the brighter, the noisier."""
    return x * (1 + rng.normal(0, deviation, x.shape))
