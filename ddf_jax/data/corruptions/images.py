"""Operations on pictures [H, W, C] and maps [H, W] of floats that several corruptions share."""

import numpy as np
from scipy import ndimage

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the brightness that is seen (ITU-R BT.601)."""


def grey(x: np.ndarray) -> np.ndarray:
    """The brightness [H, W, 1] of a picture [H, W, C], C = 1 or 3."""
    return x if x.shape[-1] == 1 else (x @ LUMA)[..., None]


def in_colour(rgb: tuple[int, int, int], channels: int) -> np.ndarray:
    """A colour [C] in [0, 1] from its levels of 0 to 255."""
    colour = np.array(rgb) / 255
    return colour if channels == 3 else colour @ LUMA[:, None]


def gaussian(x: np.ndarray, sigma: float, *, mode: str = "nearest", truncate: float = 4.0) -> np.ndarray:
    """Gaussian blur over height and width, the kernel cut off at `truncate` σ."""
    return ndimage.gaussian_filter(x, sigma, mode=mode, truncate=truncate, axes=(0, 1))


def zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The centre of a picture or a map, enlarged to its whole size, bilinearly."""
    return _resampled(_resampled(x, factor, 0), factor, 1)


def _resampled(x: np.ndarray, factor: float, axis: int) -> np.ndarray:
    """The centre ⌈n / factor⌉ of an axis becomes round(⌈n / factor⌉ · factor) samples, of which n stay."""
    size = x.shape[axis]
    part = int(np.ceil(size / factor))
    whole = round(part * factor)
    kept = np.arange(size) + (whole - size) // 2
    place = (size - part) // 2 + kept * (part - 1) / max(whole - 1, 1)
    first = np.clip(np.floor(place).astype(int), 0, size - 1)
    share = (place - first).reshape([-1 if i == axis else 1 for i in range(x.ndim)]).astype(x.dtype)
    near, far = x.take(first, axis), x.take(np.minimum(first + 1, size - 1), axis)
    return near + share * (far - near)


def motion_blurred(x: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Mean along a line from each pixel on, with half a Gaussian as weights.

    `y[p] = sum over i = 0 … 2·radius of w[i] · x[p + round(i · (sin θ, cos θ))]`, w[i] ∝ exp(-i² / (2 σ²)), pixels
    beyond the border as at it. This is what ImageMagick calls motion blur.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angle, reach = np.radians(degrees), 2 * radius
    rows = np.ceil(steps * np.sin(angle) - 0.5).astype(int) + reach
    columns = np.ceil(steps * np.cos(angle) - 0.5).astype(int) + reach
    height, width = x.shape[:2]
    padded = np.pad(x, [(reach, reach), (reach, reach)] + [(0, 0)] * (x.ndim - 2), mode="edge")
    blurred = np.zeros_like(x)
    for weight, row, column in zip(weights, rows, columns, strict=True):
        if weight > 1e-4:
            blurred += x.dtype.type(weight) * padded[row : row + height, column : column + width]
    return blurred


def plasma(height: int, width: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """A cloud [H, W] in [0, 1]: the diamond-square fractal on a torus, cut to size.

    From a grid of one point on, each halving of the grid sets a new point to the mean of its four neighbours plus a
    uniform random number, whose range is decay² times smaller than before.

    Reference: Fournier, Fussell and Carpenter, "Computer rendering of stochastic models", 1982.
    """
    side = 1 << (max(height, width) - 1).bit_length()
    cloud, step, amplitude = np.zeros((side, side)), side, 1.0
    while step > 1:
        half = step // 2
        corners = cloud[::step, ::step]
        squares = corners + np.roll(corners, -1, 0)
        squares = squares + np.roll(squares, -1, 1)
        cloud[half::step, half::step] = squares / 4 + rng.uniform(-amplitude, amplitude, squares.shape)
        centres = cloud[half::step, half::step]
        across = centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1)
        along = centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0)
        cloud[::step, half::step] = across / 4 + rng.uniform(-amplitude, amplitude, across.shape)
        cloud[half::step, ::step] = along / 4 + rng.uniform(-amplitude, amplitude, along.shape)
        step, amplitude = half, amplitude / decay**2
    cloud -= cloud.min()
    return (cloud / max(cloud.max(), 1e-12))[:height, :width]
