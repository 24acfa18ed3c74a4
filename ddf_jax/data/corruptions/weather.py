"""Weather: five corruptions by what is between the camera and the scene."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from ddf_jax.data.corruptions.images import gaussian, grey, in_colour, motion_blurred, plasma, zoomed
from ddf_jax.data.corruptions.severities import nearest_side

_WATER, _MUD = (175, 238, 238), (63, 42, 20)
_ICE = (214, 226, 240)
# The pictures of frost that the published sets were made with were reduced so much for each side.
_FROST_SCALE = {32: 0.2, 64: 0.3, 224: 1.0}


def snow(x: np.ndarray, parameters: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Falling flakes, twice in opposite directions, over a whitened picture."""
    mean, deviation, size, threshold, radius, sigma, kept = parameters
    flakes = zoomed(rng.normal(mean, deviation, x.shape[:2]), size)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = motion_blurred(flakes, int(radius), sigma, rng.uniform(-135, -45))[..., None]
    whitened = np.maximum(x, 1.5 * grey(x) + 0.5)
    return kept * x + (1 - kept) * whitened + flakes + flakes[::-1, ::-1]


def frost(x: np.ndarray, parameters: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """`a · x + b · ice`. The ice is generated (`ice`), not one of the photographs of the published sets."""
    of_picture, of_frost = parameters
    height, width, channels = x.shape
    layer = ice(height, width, _FROST_SCALE[nearest_side(height, width)], rng)
    return of_picture * x + of_frost * layer[..., None] * in_colour(_ICE, channels)


def ice(height: int, width: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness [H, W] in [0, 1] of frost on glass: crystals of six branches with needles, on a cloud.

    Args:
        height: in pixels.
        width: in pixels.
        scale: length of 1 pixel of a photograph in pixels of the layer.
        rng: of everything in it.
    """
    fine = 2  # drawn so many times larger, for smooth lines
    canvas = Image.new("L", (width * fine, height * fine))
    length = 90 * scale * fine
    count = round(3 + 2.5 * canvas.width * canvas.height / length**2)
    middles = rng.uniform(0, canvas.size, (count, 1, 2))
    branches = rng.uniform(0, np.pi / 3, (count, 1)) + np.arange(6) * np.pi / 3
    lengths = length * rng.uniform(0.4, 1.0, (count, 6, 1))
    draw = ImageDraw.Draw(canvas)
    _draw_lines(draw, middles, branches, lengths, rng, width=2)
    for share in np.linspace(0.15, 0.9, 6):
        starts = middles + share * lengths * _direction(branches)
        for side in (-np.pi / 3, np.pi / 3):
            _draw_lines(draw, starts, branches + side, 0.4 * (1 - share) * lengths, rng, width=1)
    crystals = np.asarray(canvas.reduce(fine), np.float64) / 255
    cloud = plasma(height, width, 1.7, rng)
    return np.clip(0.3 * cloud + 0.3 * gaussian(crystals, 2 * scale) + 0.8 * crystals * (0.4 + cloud), 0, 1)


def _draw_lines(
    draw: ImageDraw.ImageDraw,
    starts: np.ndarray,
    angles: np.ndarray,
    lengths: np.ndarray,
    rng: np.random.Generator,
    *,
    width: int,
) -> None:
    ends = starts + lengths * _direction(angles)
    lines = np.concatenate([np.broadcast_to(starts, ends.shape), ends], -1).reshape(-1, 4)
    for line, level in zip(lines.tolist(), rng.integers(120, 256, len(lines)).tolist(), strict=True):
        draw.line(line, fill=level, width=width)


def _direction(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def fog(x: np.ndarray, parameters: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """A cloud is added, and the sum scaled back to the picture's own maximum."""
    weight, decay = parameters
    brightest = x.max()
    cloud = plasma(x.shape[0], x.shape[1], decay, rng)[..., None]
    return (x + weight * cloud) * brightest / (brightest + weight)


def brightness(x: np.ndarray, added: float, rng: np.random.Generator) -> np.ndarray:
    """The value of HSV, the largest sample of a pixel, becomes larger; hue and saturation stay."""
    del rng
    value = x.max(-1, keepdims=True)
    brighter = np.minimum(value + added, 1)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


def spatter(x: np.ndarray, parameters: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Drops of water, lit from above, or of mud."""
    mean, deviation, sigma, threshold, strength, is_mud = parameters
    liquid = gaussian(rng.normal(mean, deviation, x.shape[:2]), sigma)
    liquid = np.where(liquid < threshold, 0, liquid)
    if is_mud:
        cover = gaussian((liquid > threshold).astype(np.float64), strength)
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return x * (1 - cover) + cover * in_colour(_MUD, x.shape[-1])
    drops = np.clip(liquid, 0, 1) * _relief(liquid > 0)
    return x + (strength * drops / max(drops.max(), 1e-12))[..., None] * in_colour(_WATER, x.shape[-1])


def _relief(wet: np.ndarray) -> np.ndarray:
    """The light [H, W], 0 to 255, on drops that are the higher, the farther from their edges."""
    edge = np.logical_xor(wet, ndimage.binary_erosion(wet))
    distance: Any = ndimage.distance_transform_edt(~edge) if edge.any() else np.full(wet.shape, 20.0)
    height = ndimage.uniform_filter(np.minimum(distance, 20), 3, mode="mirror").astype(np.uint8)
    counts = np.bincount(height.ravel(), minlength=256).cumsum()
    first = counts[counts > 0][0]
    equalized = np.clip((counts - first) * 255 / max(counts[-1] - first, 1), 0, 255)[height]
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = np.clip(ndimage.correlate(equalized, emboss, mode="mirror"), 0, 255)
    return ndimage.uniform_filter(lit, 3, mode="mirror")
