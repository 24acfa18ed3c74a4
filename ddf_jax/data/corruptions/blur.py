"""Blur: five corruptions of the sharpness of a picture."""

import numpy as np
from scipy import ndimage

from ddf_jax.data.corruptions.images import gaussian, motion_blurred, zoomed


def gaussian_blur(x: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian of standard deviation σ."""
    del rng
    return gaussian(x, sigma)


def defocus_blur(x: np.ndarray, parameters: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Mean over a disk with a soft edge."""
    del rng
    return ndimage.correlate(x, disk(*parameters)[..., None], mode="mirror")


def disk(radius: float, edge: float) -> np.ndarray:
    """The kernel of a disk, blurred by a Gaussian of σ = `edge` that is cut to 3 × 3 pixels, or 5 × 5 from 8 on."""
    reach = int(radius) + (1 if radius <= 8 else 2)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    taps = np.exp(-((np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)) ** 2) / (2 * edge**2))
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, taps / taps.sum(), axis, mode="constant")
    return kernel / kernel.sum()


def glass_blur(x: np.ndarray, parameters: tuple[float, int, int], rng: np.random.Generator) -> np.ndarray:
    """Each pixel in turn is swapped with a random one near by, between two Gaussian blurs: frosted glass."""
    sigma, farthest, rounds = parameters
    height, width, channels = x.shape
    order = np.arange(height * width).tolist()
    rows, columns = (np.arange(side - farthest, farthest, -1) for side in (height, width))
    places = (rows[:, None] * width + columns).ravel()
    for _ in range(rounds):
        down, right = rng.integers(-farthest, farthest, (2, len(places)))
        for a, b in zip(places.tolist(), (places + down * width + right).tolist(), strict=True):
            order[a], order[b] = order[b], order[a]
    shuffled = gaussian(x, sigma).reshape(-1, channels)[order].reshape(x.shape)
    return gaussian(shuffled, sigma)


def motion_blur(x: np.ndarray, parameters: tuple[int, float], rng: np.random.Generator) -> np.ndarray:
    """The camera moves, in a direction within 45° of the horizontal."""
    radius, sigma = parameters
    return motion_blurred(x, radius, sigma, rng.uniform(-45, 45))


def zoom_blur(x: np.ndarray, parameters: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """The camera moves forward: the mean of the picture and of its enlargements."""
    del rng
    largest, step = parameters
    factors = np.arange(1, largest, step)
    return (x + sum(zoomed(x, factor) for factor in factors)) / (len(factors) + 1)
