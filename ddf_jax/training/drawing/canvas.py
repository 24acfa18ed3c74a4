"""An image that is drawn on: shapes are signed distances to an outline, so that every edge is antialiased."""

import functools
import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from ddf_jax.training.drawing.palette import BLACK, Colour

_SHORT_SIDE, _LONG_SIDE = 480, 4096  # an image is enlarged to the first, but not beyond the second
_RIM = 0.45  # opacity of the dark rim of a line, which separates it from any background


class Shape(NamedTuple):
    """A part of the canvas and what lies in the shape.

    Args:
        distance: pixels to the outline, negative outside [h, w].
        top: the part's first row.
        left: its first column.
    """

    distance: np.ndarray
    top: int
    left: int


class Canvas:
    """An image, enlarged where it is small.

    Args:
        image: uint8 [H, W, 3].
        short_side: the least that the shorter side shall have in pixels.
        long_side: the longer side is enlarged to at most so many.
        largest: both sides are reduced to at most so many; default: they are not.

    Attributes:
        pixels: what is drawn so far, uint8 [H', W', 3].
        scale: pixels of the canvas for each of the image, horizontally and vertically.
        line: width of a line in pixels.
        font_size: of text in pixels.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        short_side: int = _SHORT_SIDE,
        long_side: int = _LONG_SIDE,
        largest: int | None = None,
    ):
        height, width = image.shape[:2]
        factor = max(1.0, min(short_side / min(height, width), long_side / max(height, width)))
        if largest is not None:
            factor = min(factor, largest / max(height, width))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        if size != (width, height):
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        self.pixels = image.copy()
        self.scale = size[0] / width, size[1] / height
        self.line = max(2.0, min(size) / 220)
        self.font_size = max(13, round(min(size) / 36))

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def box(self, corners: tuple[float, float, float, float], radius: float) -> Shape:
        """A rectangle with round corners, in pixels of the canvas: x1, y1, x2, y2."""
        x1, y1, x2, y2 = corners
        reach = 2 * self.line + 2
        top, left, rows, columns = self._part(x1 - reach, y1 - reach, x2 + reach, y2 + reach)
        radius = min(radius, (x2 - x1) / 2, (y2 - y1) / 2)
        beyond_x = np.abs(columns + 0.5 - (x1 + x2) / 2) - (x2 - x1) / 2 + radius
        beyond_y = np.abs(rows + 0.5 - (y1 + y2) / 2) - (y2 - y1) / 2 + radius
        outside = np.hypot(np.maximum(beyond_x, 0)[None], np.maximum(beyond_y, 0)[:, None])
        inside = np.minimum(np.maximum(beyond_x[None], beyond_y[:, None]), 0)
        return Shape((radius - outside - inside).astype(np.float32), top, left)

    def mask(self, mask: np.ndarray) -> Shape | None:
        """The smoothed outline of a mask, bool [H, W] in the image's pixels; None where the mask is empty.

        A mask that is blurred with a Gaussian has at a straight edge the value Φ(distance / σ), which is inverted.
        """
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        across, down = self.scale
        factor = max(self.scale)
        reach = 3 * self.line + 2 * factor + 2
        top, left, rows, columns = self._part(
            columns[0] * across - reach, rows[0] * down - reach,
            (columns[-1] + 1) * across + reach, (rows[-1] + 1) * down + reach,
        )  # fmt: skip
        size = len(columns), len(rows)
        right, bottom = min((left + size[0]) / across, mask.shape[1]), min((top + size[1]) / down, mask.shape[0])
        part = left / across, top / down, right, bottom
        enlarged = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR, box=part)
        blur = max(0.45 * factor, 0.45 * self.line)
        blurred = np.asarray(enlarged.filter(ImageFilter.GaussianBlur(blur)))
        enlarging = math.sqrt(max(factor**2 - 1, 0) / 12)  # has spread the edge over a pixel of the image
        return Shape(math.hypot(blur, enlarging) * _inverse_normal()[blurred], top, left)

    def fill(self, shape: Shape, colour: Colour, opacity: float = 1.0) -> None:
        """Fills a shape."""
        self.blend(opacity * np.clip(shape.distance + 0.5, 0, 1), colour, shape.top, shape.left)

    def stroke(self, shapes: Iterable[Shape], colour: Colour, width: float) -> None:
        """Draws the outlines of shapes over a thin dark rim of them all."""
        shapes = list(shapes)
        for distance, top, left in shapes:
            self.blend(_RIM * np.clip(width + 0.5 - np.abs(distance), 0, 1), BLACK, top, left)
        for distance, top, left in shapes:
            self.blend(np.clip(width / 2 + 0.5 - np.abs(distance), 0, 1), colour, top, left)

    def blend(self, coverage: np.ndarray, colour: Colour, top: int, left: int) -> None:
        """Mixes a colour into the part at (top, left), by a share for each pixel [h, w]."""
        part = self.pixels[top : top + coverage.shape[0], left : left + coverage.shape[1]]
        old = part.astype(np.float32)
        part[...] = np.rint(old + coverage[..., None] * (np.array(colour, np.float32) - old)).astype(np.uint8)

    def _part(self, x1: float, y1: float, x2: float, y2: float) -> tuple[int, int, np.ndarray, np.ndarray]:
        """The part of the canvas around a rectangle: its corner, rows and columns."""
        top, left = (min(max(math.floor(low), 0), most - 1) for low, most in ((y1, self.height), (x1, self.width)))
        bottom = min(max(math.ceil(y2), top + 1), self.height)
        right = min(max(math.ceil(x2), left + 1), self.width)
        return top, left, np.arange(top, bottom), np.arange(left, right)


@functools.cache
def _inverse_normal() -> np.ndarray:
    """Φ⁻¹ of each byte as a share."""
    return np.array([NormalDist().inv_cdf((value + 0.5) / 256) for value in range(256)], np.float32)
