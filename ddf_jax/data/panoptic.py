"""Panoptic segmentations in COCO's form: an image of segment ids, id = R + 256 G + 256² B, and a table of segments.

Every pixel has one id; 0 is void. Masks and boxes of the segments follow from the ids exactly.
Format: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

from typing import Literal

import numpy as np

from ddf_jax.analysis.panoptic_quality import Segments

IGNORED = 255
"""The label of pixels that do not count, in a map of classes."""


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Ids [H, W] below 2²⁴ to colours, uint8 [H, W, 3].

    >>> ids_to_rgb(np.array([[1 + 256 * 2 + 65536 * 3]]))
    array([[[1, 2, 3]]], dtype=uint8)
    """
    return np.stack([(ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)], axis=-1)


def rgb_to_ids(image: np.ndarray) -> np.ndarray:
    """Colours, uint8 [H, W, 3], to ids, int32 [H, W]."""
    red, green, blue = np.moveaxis(image.astype(np.int32), -1, 0)
    return red | green << 8 | blue << 16


def label_map(ids: np.ndarray, segments: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label of each pixel's segment, uint8 [H, W]; `IGNORED` where the id is none of the segments'.

    Args:
        ids: the id of each pixel [H, W].
        segments: the ids of N segments.
        labels: their labels, below `IGNORED` [N].

    >>> label_map(np.array([[7, 0, 9]]), np.array([9, 7]), np.array([1, 2]))
    array([[  2, 255,   1]], dtype=uint8)
    """
    if not len(segments):
        return np.full(ids.shape, IGNORED, np.uint8)
    order = np.argsort(segments)
    ordered, labels = np.asarray(segments)[order], np.asarray(labels)[order]
    places = np.minimum(np.searchsorted(ordered, ids), len(ordered) - 1)
    return np.where(ordered[places] == ids, labels[places], IGNORED).astype(np.uint8)


def class_map(segments: Segments, num_things: int, num_stuff: int, kind: Literal["stuff", "all"]) -> np.ndarray:
    """The class of each pixel, uint8 [H, W]; `IGNORED` where there is none.

    Args:
        segments: with things from 0, then stuff.
        num_things: classes of things.
        num_stuff: classes of stuff, S.
        kind: `all` keeps these classes; `stuff` numbers those of stuff from 0, and all things are S.
    """
    labels = np.asarray(segments.labels)
    if kind == "stuff":
        labels = np.where(labels < num_things, num_stuff, labels - num_things)
    return label_map(segments.ids, segments.numbers, labels)


def segment_masks(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The pixels of each of N segments, from ids [H, W] and the segments' ids [N]: bool [N, H, W]."""
    return ids[None] == segments[:, None, None]


def mask_boxes(masks: np.ndarray) -> np.ndarray:
    """The smallest boxes around masks, bool [N, H, W]: float32 [N, 4], x1, y1, x2, y2 in pixels.

    The right and lower sides are one beyond the last pixel. The box of an empty mask is (0, 0, 0, 0).

    >>> mask_boxes(np.array([[[False, False, False], [False, True, True]]]))
    array([[1., 1., 3., 2.]], dtype=float32)
    """
    sides = []
    for axis in (1, 2):  # over rows: which columns are used; then the reverse
        used: np.ndarray = np.any(masks, axis=axis)
        first = used.argmax(1)
        last = used.shape[1] - used[:, ::-1].argmax(1)
        sides.append(np.where(np.any(used, axis=1, keepdims=True), np.stack([first, last], 1), 0))
    (x1, x2), (y1, y2) = sides[0].T, sides[1].T
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.float32)
