"""Decodes and encodes images and depth maps. All image files are decoded here."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_MODES = {1: "L", 3: "RGB"}  # channels of the dataset -> pillow's name


class CorruptImageError(ValueError):
    """The bytes are not an image that pillow can decode."""


def decode_image(data: bytes, channels: int) -> np.ndarray:
    """Decodes the first frame of a PNG, JPEG, … as `image_to_array` returns it.

    Raises:
        CorruptImageError: the bytes are empty, truncated, or no image; the message is the reason.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image_to_array(image, channels)
    except UnidentifiedImageError as error:
        raise CorruptImageError("no known image format" if data else "empty file") from error
    except MemoryError:
        raise
    except Exception as error:  # a broken file makes pillow raise OSError, SyntaxError, struct.error, IndexError, …
        raise CorruptImageError(f"{type(error).__name__}: {error}") from error


def decode_depth(data: bytes) -> np.ndarray:
    """Decodes a grey PNG of 16 bits with millimetres to metres: float32 [H, W], 0 at unknown depth.

    Raises:
        CorruptImageError: the bytes are not such an image; the message is the reason.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format != "PNG" or not image.mode.startswith("I"):
                raise CorruptImageError(f"a {image.format} of {_depth_name(image.mode)}, not a grey PNG of 16 bits")
            return np.asarray(image).astype(np.float32) / np.float32(1000)
    except UnidentifiedImageError as error:
        raise CorruptImageError("no known image format" if data else "empty file") from error
    except (MemoryError, CorruptImageError):
        raise
    except Exception as error:
        raise CorruptImageError(f"{type(error).__name__}: {error}") from error


def encode_depth(depth: np.ndarray) -> io.BytesIO:
    """Encodes metres [H, W] as a grey PNG of 16 bits with whole millimetres, at most 65,535."""
    return encode_png(np.clip(np.round(depth * 1000.0), 0, 65535).astype(np.uint16))


def encode_png(image: np.ndarray) -> io.BytesIO:
    """Encodes an array as a PNG file in memory. TFDS would encode an array with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    file.seek(0)
    return file


def _depth_name(mode: str) -> str:
    return {"L": "8-bit grey", "LA": "8-bit grey and alpha", "P": "a palette", "1": "one bit"}.get(mode, mode)


def image_to_array(image: Image.Image, channels: int) -> np.ndarray:
    """The pixels of a pillow image, uint8 [H, W, C] with C = 1 (grey) or 3 (RGB).

    The EXIF orientation is applied; 16-bit grey keeps its upper byte (pillow alone would clip it); palettes are looked
    up; an alpha channel is dropped, not blended, as in torchvision's loader.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.clip(np.asarray(image), 0, 0xFFFF) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")  # a palette with transparency warns when it is converted in one go
    array = np.asarray(image.convert(_MODES[channels]))
    return array.reshape(*array.shape[:2], channels)
