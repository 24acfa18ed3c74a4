"""Masks as run lengths in COCO's form, and polygons as masks.

The pixels of a mask are read column by column: `counts` are the lengths of runs of 0 and of 1 in turn, beginning with 0
(which may be none). Compressed, each length, from the fourth on less the last but one, is written in digits of 5 bits,
lowest first, as the characters 48 + digit (+ 32 where another digit follows). Source: `maskApi.c` of pycocotools 2.0.

Counts and polygons may come from files of unknown origin: they are checked before memory is taken for them.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

_DIGITS = 7  # 35 bits with the sign, more than any length below 2³²
_OUTLINE = 64  # sides of an image: a longer outline, which takes memory, belongs to no object


class Rle(TypedDict):
    """Run lengths of a mask, compressed, as pycocotools takes them."""

    size: list[int]  # height and width
    counts: str | bytes  # bytes where they are made here; text in JSON


class MaskError(ValueError):
    """Run lengths or polygons that are no mask of an image; the message is the reason."""


def encode_mask(mask: np.ndarray) -> Rle:
    """The run lengths of a mask, bool or 0 and 1 [H, W]."""
    from pycocotools import mask as coco_mask

    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def rle_to_json(rle: Rle) -> dict[str, Any]:
    """Run lengths as JSON has them, `counts` being a string."""
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def encode_counts(counts: Sequence[int] | np.ndarray, size: tuple[int, int]) -> Rle:
    """Uncompressed run lengths, compressed.

    Args:
        counts: lengths of runs.
        size: height and width of the image.

    Raises:
        MaskError: they are not lengths that cover the image exactly.
    """
    from pycocotools import mask as coco_mask

    checked = _check_counts(counts, size)
    return coco_mask.frPyObjects({"counts": checked.tolist(), "size": list(size)}, *size)


def encode_polygons(polygons: Sequence[Sequence[float] | np.ndarray], size: tuple[int, int]) -> Rle:
    """The union of polygons, drawn by COCO's own rule, which decides on each pixel of an outline.

    Args:
        polygons: each (x, y, x, y, …) in pixels, at least three points.
        size: height and width of the image.

    Raises:
        MaskError: there is none, one has less than three points, a point is not finite or farther from the image than
            its size, or an outline is too long for an object.
    """
    from pycocotools import mask as coco_mask

    if not polygons:
        raise MaskError("no polygon")
    flat = [_check_polygon(polygon, size).tolist() for polygon in polygons]
    return coco_mask.merge(coco_mask.frPyObjects(flat, *size))


def decode_rle(rle: Rle, size: tuple[int, int]) -> np.ndarray:
    """The mask of compressed run lengths, bool [H, W].

    Args:
        rle: the run lengths.
        size: height and width of the image.

    Raises:
        MaskError: they are not lengths that cover an image of that size exactly.
    """
    if list(rle["size"]) != list(size):
        raise MaskError(f"run lengths of {rle['size']} instead of {list(size)}")
    counts = _check_counts(read_counts(rle["counts"]), size)
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[::-1]).T


def read_counts(text: str | bytes) -> np.ndarray:
    """The lengths that a compressed text states, int64 [N], not checked.

    Raises:
        MaskError: the text is not compressed run lengths.
    """
    data = text.encode(errors="replace") if isinstance(text, str) else text
    digits = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise MaskError("a text that is not compressed run lengths")
    ends = np.flatnonzero(digits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _DIGITS:
        raise MaskError("a run length of more than 32 bits")
    places = np.arange(len(digits)) - np.repeat(starts, lengths)
    counts = np.add.reduceat((digits & 31) << 5 * places, starts)
    counts -= np.where(digits[ends] & 16, np.int64(1) << 5 * lengths, 0)
    for first in (1, 2):  # the fourth length is that of the second plus what is written, and so on
        counts[first::2] = np.cumsum(counts[first::2])
    return counts


def _check_counts(counts: Sequence[int] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    lengths = _array(counts)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise MaskError("run lengths that are not a list of whole numbers")
    if len(lengths) and (lengths.min() < 0 or lengths.max() > size[0] * size[1]):
        raise MaskError(f"a run length outside 0 … {size[0] * size[1]}")
    if (total := int(lengths.sum())) != size[0] * size[1]:
        raise MaskError(f"run lengths of {total} pixels instead of {size[0]}×{size[1]}")
    return lengths


def _check_polygon(polygon: Sequence[float] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    points = _array(polygon)
    if points.ndim != 1 or points.dtype.kind not in "iuf" or len(points) < 6 or len(points) % 2:
        raise MaskError("a polygon that is not three or more points (x, y)")
    points, limits = points.astype(np.float64).reshape(-1, 2), np.array(size[::-1])
    if not ((points >= -limits) & (points <= 2 * limits)).all():
        raise MaskError("a polygon with a point that is no number or leaves the image by more than its size")
    steps = np.abs(np.diff(points, axis=0, append=points[:1]))
    if steps.max(1).sum() > _OUTLINE * sum(size):
        raise MaskError(f"a polygon whose outline is longer than {_OUTLINE} times the image's sides")
    return points.reshape(-1)


def _array(values: Sequence[float] | np.ndarray) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:  # lists of several lengths
        raise MaskError("lists within a list of numbers") from error
