"""Noise as a camera makes it: four kinds, for images whose pixels are in [0, 1]."""

from collections.abc import Callable

import numpy as np

Noise = Callable[[np.ndarray, np.random.Generator], np.ndarray]

# Third of five severities.
_GAUSSIAN, _SHOT, _IMPULSE, _SPECKLE = 0.18, 12, 0.09, 0.35


def gaussian(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of low light: normally distributed, the same everywhere."""
    return np.clip(pixels + rng.normal(0, _GAUSSIAN, pixels.shape), 0, 1)


def shot(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of light's own grain: Poisson, stronger where it is bright."""
    return np.clip(rng.poisson(pixels * _SHOT) / _SHOT, 0, 1)


def impulse(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of bit errors: some values become 0 or 1."""
    hit, bright = rng.random(pixels.shape) < _IMPULSE, rng.random(pixels.shape) < 0.5
    return np.where(hit, bright, pixels)


def speckle(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In proportion to the pixel itself."""
    return np.clip(pixels * (1 + rng.normal(0, _SPECKLE, pixels.shape)), 0, 1)


# Reference: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
# ICLR 2019, with its severities.
NOISES: dict[str, Noise] = {"Gaussian": gaussian, "shot": shot, "impulse": impulse, "speckle": speckle}
