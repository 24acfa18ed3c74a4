"""A crop of an image and its size afterwards: chosen before the image is decoded, so that decoding can make use of it.

Resizing is pillow's antialiased one, which is what torchvision does to images.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from ddf_jax.data.jpeg import sequential_frame, upper_rows

Pixels = np.ndarray | Image.Image
"""An image, uint8 [H, W, C], C = 1 (grey) or 3 (RGB), or pillow's image of these pixels."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


class UpperPart(NamedTuple):
    """What of an image file is needed for a crop.

    Args:
        data: the file; where it is a JPEG whose rows come one after the other, without most of those below the box.
        size: width and height of the whole image, where they are known.
        box: the box, likewise.
    """

    data: bytes
    size: tuple[int, int] = (0, 0)
    box: Box | None = None


class Crop(NamedTuple):
    """What becomes of an image: a box of it, resized to a square.

    Args:
        box: the box, for an image's height and width; it may be asked for twice.
        size: side of the square.
        resampling: pillow's filter.
        draft: whether a JPEG may be decoded at a part of its size, as long as the box has at least the square's pixels.
    """

    box: Callable[[int, int], Box]
    size: int
    resampling: Image.Resampling = Image.Resampling.BILINEAR
    draft: bool = False

    def of_array(self, image: np.ndarray) -> np.ndarray:
        """From uint8 [H, W, C], C = 1 or 3, to [size, size, C]."""
        top, left, height, width = self.box(*image.shape[:2])
        return resize(image[top : top + height, left : left + width], self.size, self.size, self.resampling)

    def upper_part(self, data: bytes) -> UpperPart:
        """The part of a file that `of_file` needs to be opened."""
        frame = sequential_frame(data)
        if frame is None:
            return UpperPart(data)
        box = self.box(frame.height, frame.width)
        part = data if self._at_most(box) > 1 else upper_rows(data, frame, box.top + box.height)
        return UpperPart(part, (frame.width, frame.height), box)

    def of_file(self, image: Image.Image, box: Box | None = None) -> Image.Image:
        """From a file, or a part of it with this box, that is opened but not decoded, in grey or RGB."""
        box = box or self.box(image.height, image.width)
        scale = _draft(image, self._at_most(box))
        if scale > 1:
            left, top = box.left / scale, box.top / scale
            part = (left, top, left + box.width / scale, top + box.height / scale)
            return image.resize((self.size, self.size), self.resampling, part)
        cut = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
        return cut.resize((self.size, self.size), self.resampling)

    def _at_most(self, box: Box) -> int:
        """How many times smaller an image may be decoded."""
        return max(1, min(box.height, box.width) // self.size) if self.draft else 1


def resize(
    image: np.ndarray, height: int, width: int, resampling: Image.Resampling = Image.Resampling.BILINEAR
) -> np.ndarray:
    """`[H, W, C]` to `[height, width, C]`, C = 1 or 3, uint8."""
    return (
        image if image.shape[:2] == (height, width) else to_array(to_pillow(image).resize((width, height), resampling))
    )


def to_pillow(image: Pixels) -> Image.Image:
    """An image [H, W, C], C = 1 or 3, uint8, as pillow's."""
    if isinstance(image, Image.Image):
        return image
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def to_array(image: Pixels) -> np.ndarray:
    """A grey or RGB image of pillow's as an array [H, W, C]."""
    array = np.asarray(image)
    return array[..., None] if isinstance(image, Image.Image) and array.ndim == 2 else array


def _draft(image: Image.Image, at_most: int) -> float:
    """Asks for a decoding at 1/2, 1/4 or 1/8; how many times smaller the image, of which no more than `at_most`, is."""
    if at_most < 2:
        return 1.0
    width, height = image.size
    found = image.draft(None, (width // at_most, height // at_most))  # pyright: ignore[reportArgumentType]
    return 1.0 if found is None else width / found[1][2]
