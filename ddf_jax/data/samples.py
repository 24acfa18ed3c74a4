"""Images of more than 8 bits a sample as 8 bits: which sample is black and which is white.

The range is what the file states: the maxval of a PGM, a PNG's sBIT where no sample exceeds it, the minimum and maximum
sample values of a TIFF. Else it is that of the integer type. Floating-point samples have no range of their own.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, TiffTags
from PIL.TiffImagePlugin import TiffImageFile

_TAGS = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}
_LOW = (_TAGS["SMinSampleValue"], _TAGS["MinSampleValue"])
_HIGH = (_TAGS["SMaxSampleValue"], _TAGS["MaxSampleValue"])
_UNSIGNED, _SIGNED = 1, 2  # of SampleFormat

_CHUNK = 1 << 20  # samples scaled at a time, so that an image does not take 8 bytes a sample

_SWAPPED = {"16B": "16L", "16L": "16B", "16N": "16B" if np.little_endian else "16L"}


class CorruptImageError(ValueError):
    """The bytes are not an image that can be decoded; the message is the reason."""


class TooManyPixelsError(CorruptImageError):
    """An image of more pixels than are decoded."""


class Format(NamedTuple):
    """What an image file states about its samples. To be read before the pixels: loading drops some of it.

    Args:
        low: the sample that is black.
        high: the sample that is white; None for floating-point samples whose range is not stated.
        unit: what pillow makes of a sample of 1: it scales a PGM to 16 bits.
        significant: bits that a PNG states to be used.
        unsigned: whether samples of 32 bits are unsigned, which pillow does not tell.
        inverted: whether the smallest sample is white, which pillow applies to 8 bits only.
    """

    low: float = 0
    high: float | None = None
    unit: float = 1
    significant: int | None = None
    unsigned: bool = False
    inverted: bool = False


def is_deep(image: Image.Image) -> bool:
    """Whether pillow keeps the samples with more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def is_deep_colour(image: Image.Image) -> bool:
    """Whether a file has colour of 16 bits, of which pillow decodes the upper byte."""
    if image.format == "PPM":  # which pillow scales to 8 bits
        return image.mode == "RGB" and any(
            isinstance(tile.args, tuple) and tile.args[1] > 255 for tile in _tiles(image)
        )
    return ";16" in _raw_mode(image) and image.mode in ("RGB", "RGBA", "RGBX")


def swap_bytes(image: Image.Image) -> bool:
    """Makes pillow decode the lower byte of 16-bit colour; whether it can."""
    raw = _raw_mode(image)
    kind, _, order = raw.partition(";")
    if kind == "LA" or order not in _SWAPPED:
        return False
    other = f"{kind};{_SWAPPED[order]}"
    image.tile = [  # pyright: ignore[reportAttributeAccessIssue]
        tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:])) for tile in _tiles(image)
    ]
    return True


def states_less_than_16_bits(stated: Format, used: float) -> bool:
    """Whether a file of 16 bits, of which so large a share is used, states another range than that of 16 bits."""
    narrow = stated.significant is not None and used * 65536 <= 1 << stated.significant
    return narrow or (stated.low, stated.high) != (0, 65535)


def read_format(image: Image.Image, data: bytes) -> Format:
    """What a file states about its samples.

    Args:
        image: as opened, before its pixels are loaded.
        data: the file; empty for an image that comes from none.
    """
    if isinstance(image, TiffImageFile):
        return _tiff_format(image)
    if image.format == "PPM" and image.mode == "I":
        maxval = next((tile.args[1] for tile in _tiles(image) if isinstance(tile.args, tuple)), 65535)
        return Format(high=65535, unit=65535 / maxval)
    if image.format == "PNG":
        return Format(high=65535, significant=_significant_bits(data))
    return Format(high={"F": None, "I": 2**31 - 1}.get(image.mode, 65535))


def eight_bits(values: np.ndarray, stated: Format, sample_max: float | None) -> tuple[np.ndarray, float]:
    """Samples as uint8, and the largest of them as a share of the range.

    Integers keep their upper bits, ⌊256 (v - low) / (high - low + 1)⌋; floats are rounded: 255 (v - low) / range.

    Raises:
        CorruptImageError: floats without a range or that are not numbers, or an empty range.
    """
    if stated.unsigned:
        values = values.view(np.uint32)
    low, high = stated.low, stated.high
    if stated.significant and values.max() < 1 << stated.significant:
        high = (1 << stated.significant) - 1
    if sample_max is not None:
        low, high = 0, sample_max * stated.unit
    if high is None:
        raise CorruptImageError(
            "floating-point samples whose range the file does not state: set `data.sample_max` to white"
        )
    if not low < high:
        raise CorruptImageError(f"the file states an empty range of samples, {low} to {high}")
    largest = float(values.max())
    if not np.isfinite(largest):
        raise CorruptImageError(f"samples must be finite numbers, got {largest}")
    if (low, high) == (0, 65535) and values.dtype.itemsize == 2:
        scaled = (values >> 8).astype(np.uint8)
    else:
        scaled = np.empty(values.shape, np.uint8)
        given, result = values.reshape(-1), scaled.reshape(-1)
        # Truncation takes the upper bits of integers and rounds floats. Float64 is exact for integers of 32 bits.
        factor, divisor, half = (255, high - low, 0.5) if values.dtype.kind == "f" else (256, high - low + 1, 0.0)
        for start in range(0, given.size, _CHUNK):
            part = np.clip(given[start : start + _CHUNK].astype(np.float64), low, high) - low
            result[start : start + _CHUNK] = part * factor / divisor + half
    return (255 - scaled if stated.inverted else scaled), (largest - low) / (high - low)


def tile_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a TIFF's tiles, which are decoded whole, however small the image; else zeros."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    return int(tags.get(_TAGS["TileWidth"], 0)), int(tags.get(_TAGS["TileLength"], 0))


def webp_canvas(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP, whose memory pillow takes when it opens the file; zeros for another file."""

    def number(start: int, stop: int) -> int:
        return int.from_bytes(data[start:stop], "little")

    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        match data[12:16]:
            case b"VP8X":
                return number(24, 27) + 1, number(27, 30) + 1
            case b"VP8L":
                return (number(21, 25) & 0x3FFF) + 1, (number(21, 25) >> 14 & 0x3FFF) + 1
            case b"VP8 ":
                return number(26, 28) & 0x3FFF, number(28, 30) & 0x3FFF
    return 0, 0


def _tiff_format(image: TiffImageFile) -> Format:
    tags = image.tag_v2
    [bits, kind] = (
        _first(tags.get(_TAGS[name], default)) for name, default in (("BitsPerSample", 1), ("SampleFormat", 1))
    )
    low = next((_least(tags[tag], min) for tag in _LOW if tag in tags), 0)
    high = next((_least(tags[tag], max) for tag in _HIGH if tag in tags), None)
    if high is None and kind in (_UNSIGNED, _SIGNED):
        high = 2 ** (bits - (kind == _SIGNED)) - 1
    inverted = is_deep(image) and tags.get(_TAGS["PhotometricInterpretation"]) == 0
    return Format(low, high, unsigned=(bits, kind) == (32, _UNSIGNED), inverted=inverted)


def _first(value):
    return value[0] if isinstance(value, tuple) else value


def _least(value, choose) -> float:
    return float(choose(value)) if isinstance(value, tuple) else float(value)


def _significant_bits(data: bytes) -> int | None:
    """The largest number of bits in a PNG's sBIT, where it is less than 16."""
    for name, content in _png_chunks(data):
        if name == b"IDAT":
            break
        if name == b"sBIT":
            bits = max(content[:3], default=0)
            return bits if 0 < bits < 16 else None
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        yield name, data[position + 8 : position + 8 + length]
        position += 12 + length


def _tiles(image: Image.Image) -> list:
    return getattr(image, "tile", [])


def _raw_mode(image: Image.Image) -> str:
    """What pillow calls the layout of a file's samples, such as `RGB;16B`."""
    for tile in _tiles(image):
        args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        return str(args[0]) if args else ""
    return ""
