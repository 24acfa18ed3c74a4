"""Captions: text on a coloured plate, within the canvas and off one another."""

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddf_jax.training.drawing.palette import Colour, text_colour

if TYPE_CHECKING:
    from ddf_jax.training.drawing.canvas import Canvas

Rectangle = tuple[float, float, float, float]  # x1, y1, x2, y2


class Captions:
    """Writes on a canvas, and knows where there is text already."""

    def __init__(self, canvas: "Canvas") -> None:
        self._canvas = canvas
        self._font = _font(canvas.font_size)
        self._padding = max(2, round(0.25 * canvas.font_size))
        self._written: list[Rectangle] = []

    def at_box(self, text: str, box: Rectangle, colour: Colour) -> None:
        """Writes above a box, or where less text is hidden: in it, below or next to it."""
        text, width, height = self._measured(text)
        x1, y1, x2, y2 = box
        rows = (y1 - height, y1, y2, y2 - height, y1 - 2 * height, y2 + height)
        places = [(x, y) for x in (x1, x2 - width, x2, x1 - width) for y in rows]
        self._write(text, places, width, height, colour)

    def around(self, text: str, x: float, y: float, colour: Colour) -> None:
        """Writes around a point."""
        text, width, height = self._measured(text)
        steps = (0, 1, -1, 2, -2)
        self._write(text, [(x - width / 2, y + (step - 0.5) * height) for step in steps], width, height, colour)

    def _measured(self, text: str) -> tuple[str, int, int]:
        """The text, shortened to fit the canvas, and the size of its plate."""
        room = self._canvas.width - 2 * self._padding
        if self._font.getlength(text) > room:
            fitting = [end for end in range(len(text)) if self._font.getlength(text[:end] + "…") <= room]
            text = text[: max(fitting, default=0)] + "…"
        ascent, descent = self._font.getmetrics()
        return text, round(self._font.getlength(text)) + 2 * self._padding, ascent + descent + self._padding

    def _write(self, text: str, places: Sequence[tuple[float, float]], width: int, height: int, colour: Colour) -> None:
        limits = max(0, self._canvas.width - width), max(0, self._canvas.height - height)
        inside = [(min(max(round(x), 0), limits[0]), min(max(round(y), 0), limits[1])) for x, y in places]
        plates = [(x, y, x + width, y + height) for x, y in inside]
        x1, y1, x2, y2 = plate = min(plates, key=lambda one: sum(_overlap(one, other) for other in self._written))
        self._written.append(plate)
        self._canvas.fill(self._canvas.box(plate, radius=self._padding), colour)
        room = Image.new("L", (x2 - x1, y2 - y1))
        ImageDraw.Draw(room).text((self._padding, self._padding / 2), text, fill=255, font=self._font)
        shown = np.asarray(room, np.float32)[: self._canvas.height - y1, : self._canvas.width - x1]
        self._canvas.blend(shown / 255, text_colour(colour), y1, x1)


def _overlap(one: Rectangle, other: Rectangle) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


@functools.lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships: Latin, Greek, Cyrillic and more."""
    import matplotlib

    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
