"""Decodes and encodes images and depth maps. All image files are decoded here."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

from ddf_jax.data.config import DEFAULT_DECODING, Decoding
from ddf_jax.data.crop import Crop, to_pillow
from ddf_jax.data.npy import is_npy, read_npy
from ddf_jax.data.samples import (
    CorruptImageError,
    Format,
    TooManyPixelsError,
    eight_bits,
    is_deep,
    is_deep_colour,
    read_format,
    states_less_than_16_bits,
    swap_bytes,
    tile_size,
    webp_canvas,
)

__all__ = [
    "CorruptImageError",
    "Decoded",
    "TooManyPixelsError",
    "decode",
    "decode_crop",
    "decode_depth",
    "decode_image",
    "encode_depth",
    "encode_png",
    "image_size",
    "image_to_array",
]

# Pillow would try some 45 formats, whatever the file is called, and start Ghostscript for one of them.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_USUAL = ("JPEG", "PNG", "WEBP")  # of which almost all are in grey or RGB of 8 bits
_MODES = {1: "L", 3: "RGB"}  # channels of the dataset -> pillow's name
_BAND = 1 << 22  # pixels converted at a time
# EXIF orientation -> what turns an image back to how it was stored.
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

Image.init()
_KNOWN_FORMATS = tuple(name for name in _FORMATS if name in Image.OPEN)  # an old pillow has no AVIF
# An image above the limit is an error here; pillow's warning would be a second line.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Decoded(NamedTuple):
    """An image, and how much of their range its samples use.

    Args:
        image: uint8 [H, W, C].
        used: the largest sample as a share of the range; None for 8 bits a sample.
    """

    image: np.ndarray
    used: float | None


def decode_image(
    data: bytes, channels: int, decoding: Decoding = DEFAULT_DECODING, *, upright: bool = True
) -> np.ndarray:
    """Decodes the first frame of a PNG, JPEG, … as `image_to_array` returns it.

    Raises:
        CorruptImageError: the bytes are empty, truncated, no image of a known format, or have too many pixels; the
            message is the reason.
    """
    return decode(data, channels, decoding, upright=upright).image


def decode(data: bytes, channels: int, decoding: Decoding = DEFAULT_DECODING, *, upright: bool = True) -> Decoded:
    """Decodes as `decode_image` does; `upright` turns the image as its EXIF orientation states."""
    with _opened(data, decoding.max_pixels) as image:
        stated = read_format(image, data)
        if not is_deep_colour(image):
            return _to_array(_oriented(image, upright), channels, stated, decoding.sample_max)
        return _deep_colour(image, data, channels, stated, decoding, upright)


def decode_crop(data: bytes, channels: int, crop: Crop, decoding: Decoding = DEFAULT_DECODING) -> Image.Image:
    """What `crop` makes of the image that `decode_image` returns. Of most files no whole array is made on the way.

    Raises:
        CorruptImageError: as `decode_image`.
    """
    part = crop.upper_part(data)
    with _opened(part.data, decoding.max_pixels) as image:
        _check_size(part.size, decoding.max_pixels)
        if _needs_no_conversion(image, channels):
            return crop.of_file(image, part.box)
    return to_pillow(crop.of_array(decode_image(data, channels, decoding)))


def image_size(data: bytes, decoding: Decoding = DEFAULT_DECODING) -> tuple[int, int]:
    """Height and width of an image file as stored, without decoding its pixels.

    Raises:
        CorruptImageError: as `decode_image`, of what the start of the file shows.
    """
    with _opened(data, decoding.max_pixels) as image:
        return image.height, image.width


def image_to_array(image: Image.Image, channels: int, sample_max: float | None = None) -> np.ndarray:
    """The pixels of a pillow image, uint8 [H, W, C] with C = 1 (grey) or 3 (RGB).

    The EXIF orientation is applied; more than 8 bits a sample become the 8 upper bits of the range
    (`ddf_jax.data.samples`); palettes are looked up; an alpha channel is dropped, not blended, as in torchvision's
    loader.

    Raises:
        CorruptImageError: floating-point samples, and no `sample_max`.
    """
    stated = read_format(image, b"")
    return _to_array(ImageOps.exif_transpose(image), channels, stated, sample_max).image


def decode_depth(
    data: bytes, units_per_metre: float | None = None, *, max_pixels: int = Decoding.max_pixels
) -> np.ndarray:
    """Decodes a depth map to metres: float32 [H, W], 0 at unknown depth, as stored, whatever its EXIF orientation.

    A grey PNG, TIFF or PGM of more than 8 bits, or an array in NPY. Integers are millimetres and floats metres unless
    `units_per_metre` is given. Depth is unknown at 0, at a negative or non-finite number, and at the integer 65535,
    where 16 bits saturate.

    Raises:
        CorruptImageError: the bytes are not such a map; the message is the reason.
    """
    values = read_npy(data) if is_npy(data) else _depth_samples(data, max_pixels)
    _check_size(values.shape[::-1], max_pixels)  # of an array in NPY, which has no more bytes than its file
    known = (values > 0) & (np.isfinite(values) if values.dtype.kind == "f" else values != 65535)
    scale = units_per_metre or (1 if values.dtype.kind == "f" else 1000)
    return np.where(known, values, 0).astype(np.float32) / np.float32(scale)


def encode_depth(depth: np.ndarray) -> io.BytesIO:
    """Encodes metres [H, W] as a grey PNG of 16 bits with whole millimetres, at most 65,535."""
    return encode_png(np.clip(np.round(depth * 1000.0), 0, 65535).astype(np.uint16))


def encode_png(image: np.ndarray) -> io.BytesIO:
    """Encodes an array as a PNG file in memory. TFDS would encode an array with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    file.seek(0)
    return file


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """An image file of a known format within the limit; whatever fails within is a CorruptImageError."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # pillow has one limit for the whole process
    try:
        _check_size(webp_canvas(data), max_pixels)
        with Image.open(io.BytesIO(data), formats=_KNOWN_FORMATS) as image:
            _check_size(image.size, max_pixels)
            _check_size(tile_size(image), max_pixels)
            yield image
    except UnidentifiedImageError as error:
        raise CorruptImageError("no known image format" if data else "empty file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError(f"more pixels than `data.max_pixels` = {max_pixels}: {error}") from error
    except (MemoryError, CorruptImageError):
        raise
    except Exception as error:  # a broken file makes pillow raise OSError, SyntaxError, struct.error, IndexError, …
        raise CorruptImageError(f"{type(error).__name__}: {error}") from error


def _needs_no_conversion(image: Image.Image, channels: int) -> bool:
    """Whether pillow's pixels of a file are the image as they are."""
    is_usual = image.format in _USUAL and image.mode == _MODES[channels] and not is_deep_colour(image)
    return is_usual and image.getexif().get(Base.Orientation, 1) == 1


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise TooManyPixelsError(f"{size[0]}×{size[1]} pixels, more than `data.max_pixels` = {max_pixels}")


def _oriented(image: Image.Image, upright: bool) -> Image.Image:
    """A loaded file, turned as its EXIF orientation states, or as stored."""
    if upright:
        ImageOps.exif_transpose(image, in_place=True)  # without a copy
        return image
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    orientation = tags.get(Base.Orientation, 1)
    image.load()
    was_turned = Base.Orientation not in tags  # pillow turns a TIFF when it loads it
    return image.transpose(_BACK[orientation]) if was_turned and orientation in _BACK else image


def _to_array(image: Image.Image, channels: int, stated: Format, sample_max: float | None) -> Decoded:
    used = None
    if is_deep(image):
        array, used = eight_bits(np.asarray(image), stated, sample_max)
    elif image.mode == "L":
        array = np.asarray(image)
    else:
        array = _converted(image, _MODES[channels])
    return Decoded(np.repeat(array[..., None], channels, -1) if array.ndim == 2 else array, used)


def _converted(image: Image.Image, mode: str) -> np.ndarray:
    """The pixels in another mode, a band of rows at a time: each of pillow's images takes up to 4 bytes a pixel."""
    image.load()
    array = np.empty((image.height, image.width, *([3] if mode == "RGB" else [])), np.uint8)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height))) if rows < image.height else image
        if band.mode == "La":
            band = band.convert("LA")  # pillow converts it to nothing else, nor LAB
        elif band.has_transparency_data:
            band = band.convert("RGBA")  # a palette with transparency warns when it is converted in one go
        elif band.mode == "LAB":
            band = band.convert("RGB")
        array[top : top + rows] = np.asarray(band.convert(mode))
    return array


def _deep_colour(
    image: Image.Image, data: bytes, channels: int, stated: Format, decoding: Decoding, upright: bool
) -> Decoded:
    """Colour of 16 bits: its upper bytes, or all of them where its range is not that of 16 bits."""
    used = (max(high for _, high in image.getextrema()[:3]) * 256 + 255) / 65535  # pyright: ignore[reportIndexIssue, reportGeneralTypeIssues]
    if decoding.sample_max is None and not states_less_than_16_bits(stated, used):
        return _to_array(_oriented(image, upright), channels, stated, None)._replace(used=used)
    halves = []
    for lower in (False, True):
        with _opened(data, decoding.max_pixels) as half:
            if lower and not swap_bytes(half):
                raise CorruptImageError(f"pillow reads 8 bits of a {half.format} of this kind: save it as an RGB TIFF")
            halves.append(np.asarray(_oriented(half, upright))[..., :3].astype(np.uint16))
    array, used = eight_bits(halves[0] << 8 | halves[1], stated, decoding.sample_max)
    return Decoded(array if channels == 3 else np.asarray(Image.fromarray(array).convert("L"))[..., None], used)


def _depth_samples(data: bytes, max_pixels: int) -> np.ndarray:
    with _opened(data, max_pixels) as image:
        stated = read_format(image, data)
        if not is_deep(image):
            raise CorruptImageError(f"a {image.format} of {_depth_name(image.mode)}, not grey of more than 8 bits")
        values = np.asarray(_oriented(image, upright=False))
    return values if stated.unit == 1 else np.round(values / stated.unit).astype(np.int32)


def _depth_name(mode: str) -> str:
    return {"L": "8-bit grey", "LA": "8-bit grey and alpha", "P": "a palette", "1": "one bit"}.get(mode, mode)
