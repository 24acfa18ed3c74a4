"""Encoded bytes to pixels: the one place where an image file becomes an array."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_MODES = {1: "L", 3: "RGB"}  # channels of the dataset -> pillow's name


class CorruptImageError(ValueError):
    """The bytes are not an image that pillow can decode."""


def decode_image(data: bytes, channels: int) -> np.ndarray:
    """Decodes the first frame of a PNG, JPEG, … as `pixels` returns it.

    Raises:
        CorruptImageError: the bytes are empty, cut short, or no image; the message is the reason.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return pixels(image, channels)
    except UnidentifiedImageError as error:
        raise CorruptImageError("no known image format" if data else "empty file") from error
    except MemoryError:
        raise
    except Exception as error:  # a broken file makes pillow raise OSError, SyntaxError, struct.error, IndexError, …
        raise CorruptImageError(f"{type(error).__name__}: {error}") from error


def pixels(image: Image.Image, channels: int) -> np.ndarray:
    """The pixels as a viewer shows them, uint8 `[H, W, C]` with C = 1 (grey) or 3 (RGB).

    Turned as the EXIF orientation says; 16-bit grey keeps its upper byte (pillow alone would clip it); palettes are
    looked up; an alpha channel is dropped, not blended, as torchvision's loader does.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.clip(np.asarray(image), 0, 0xFFFF) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")  # a palette with transparency warns when it is converted in one go
    array = np.asarray(image.convert(_MODES[channels]))
    return array.reshape(*array.shape[:2], channels)
