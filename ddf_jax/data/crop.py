"""A crop of an image and its size afterwards: chosen before the image is decoded, so that decoding can make use of it.

Resizing is pillow's antialiased one, which is what torchvision does to images.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from ddf_jax.data.jpeg import upper_rows

Pixels = np.ndarray | Image.Image
"""An image, uint8 [H, W, C], C = 1 (grey) or 3 (RGB), or pillow's image of these pixels."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


class Crop(NamedTuple):
    """What becomes of an image: a box of it, resized to a square.

    Args:
        box: the box, for an image's height and width.
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

    def of_file(self, image: Image.Image, data: bytes) -> Image.Image:
        """From a file that is opened but not decoded, in grey or RGB."""
        box = self.box(image.height, image.width)
        scale = _draft(image, min(box.height, box.width) // self.size) if self.draft else 1.0
        if scale > 1:
            left, top = box.left / scale, box.top / scale
            part = (left, top, left + box.width / scale, top + box.height / scale)
            return image.resize((self.size, self.size), self.resampling, part)
        cut = _upper_part(image, data, box.top + box.height).crop(
            (box.left, box.top, box.left + box.width, box.top + box.height)
        )
        return cut.resize((self.size, self.size), self.resampling)


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


def _upper_part(image: Image.Image, data: bytes, rows: int) -> Image.Image:
    """A file of which the first rows are to be decoded; of a JPEG without most of the others."""
    if isinstance(image, JpegImageFile):
        block = 8 * max(vertical for _, _, vertical, _ in image.layer)
        needed = (-(-rows // block) + 1) * block
        if needed < image.height:
            return Image.open(io.BytesIO(upper_rows(data, needed)), formats=("JPEG",))
    return image


def _draft(image: Image.Image, at_most: int) -> float:
    """Asks for a decoding at 1/2, 1/4 or 1/8; how many times smaller the image, of which no more than `at_most`, is."""
    if at_most < 2:
        return 1.0
    width, height = image.size
    found = image.draft(None, (width // at_most, height // at_most))  # pyright: ignore[reportArgumentType]
    return 1.0 if found is None else width / found[1][2]
