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


def decode_depth(data: bytes) -> np.ndarray:
    """Decodes a grey PNG of 16 bits, millimetres, to metres: float32 `[H, W]`, 0 where nothing was measured.

    Raises:
        CorruptImageError: the bytes are none; the message is the reason.
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
    """Metres [H, W] as a grey PNG of 16 bits: whole millimetres, of which 65,535 is the most."""
    return encode_png(np.clip(np.round(depth * 1000.0), 0, 65535).astype(np.uint16))


def encode_png(image: np.ndarray) -> io.BytesIO:
    """A file of PNG bytes: given an array instead, TFDS would encode it with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    file.seek(0)
    return file


def _depth_name(mode: str) -> str:
    return {"L": "8-bit grey", "LA": "8-bit grey and alpha", "P": "a palette", "1": "one bit"}.get(mode, mode)


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
