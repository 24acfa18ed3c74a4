"""Digital: five corruptions by processing."""

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from ddf_jax.data.corruptions.images import gaussian


def contrast(x: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """`mean + factor · (x - mean)`, of each channel."""
    del rng
    mean = x.mean((0, 1), keepdims=True)
    return mean + factor * (x - mean)


def elastic_transform(x: np.ndarray, parameters: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """A random affine map and smooth random displacements, in one bilinear resampling."""
    farthest, sigma, range_of_corners = parameters
    height, width, channels = x.shape
    middle, third = np.array([height, width]) // 2, min(height, width) // 3
    corners = middle + third * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + rng.uniform(-range_of_corners, range_of_corners, corners.shape)
    # The map that takes the moved corners back: [row, column, 1] @ back = [row, column].
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)
    displaced = np.mgrid[:height, :width].astype(np.float64)
    if farthest:
        for axis in (0, 1):
            random = rng.uniform(-1, 1, (height, width))
            displaced[axis] += farthest * gaussian(random, sigma, mode="reflect", truncate=3.0)
    places = np.tensordot(back[:2].T, displaced, 1) + back[2][:, None, None]
    warped = [ndimage.map_coordinates(x[..., c], places, order=1, mode="mirror") for c in range(channels)]
    return np.stack(warped, -1)


def pixelate(x: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Smaller and back to size, by the mean of boxes of pixels."""
    del rng
    picture = _to_pillow(x)
    small = max(1, int(picture.width * factor)), max(1, int(picture.height * factor))
    for size in (small, picture.size):
        picture = picture.resize(size, Image.Resampling.BOX)
    return _from_pillow(picture)


def jpeg_compression(x: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    """Saved as JPEG and read again."""
    del rng
    file = io.BytesIO()
    _to_pillow(x).save(file, "jpeg", quality=quality)
    with Image.open(file, formats=["JPEG"]) as picture:
        return _from_pillow(picture)


def saturate(x: np.ndarray, parameters: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """The saturation s of HSV becomes `a · s + b`; hue and value stay, and the hue of grey is red. Grey pictures stay.

    With the value v, the largest sample of a pixel, a sample is v · (1 - s · h), h of the hue alone.
    """
    del rng
    if x.shape[-1] == 1:
        return x
    factor, added = parameters
    value = x.max(-1, keepdims=True)
    below = value - x
    range_ = below.max(-1, keepdims=True)
    hue = np.where(range_ > 0, below / np.where(range_ > 0, range_, 1), [0.0, 1.0, 1.0])
    saturation = range_ / np.where(value > 0, value, 1)
    return value * (1 - np.clip(factor * saturation + added, 0, 1) * hue)


def _to_pillow(x: np.ndarray) -> Image.Image:
    pixels = np.round(255 * x).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _from_pillow(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture) / 255
    return pixels[..., None] if pixels.ndim == 2 else pixels
