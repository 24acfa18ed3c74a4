"""Masks of boxes as masks of images, on the host."""

import numpy as np


def paste_masks(masks: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5) -> np.ndarray:
    """Which pixels of an image each mask covers: [N, height, width] bool.

    The mask is bilinearly interpolated at the pixels' centres, 0 outside, and compared with the threshold, as in
    MMDetection. Only the part of the image around the box is computed, as the product of the mask with the weights of
    its rows and columns.

    Args:
      masks: probabilities [N, h, w].
      boxes: corners (x1, y1, x2, y2) in pixels of the image [N, 4].
      height: of the image.
      width: of the image.
      threshold: the least probability.
    """
    pasted = np.zeros((len(masks), height, width), bool)
    for mask, box, image in zip(masks, np.asarray(boxes, masks.dtype), pasted, strict=True):
        (top, rows), (left, columns) = (
            _weights(box[axis], box[axis + 2], size, length)
            for axis, size, length in ((1, mask.shape[0], height), (0, mask.shape[1], width))
        )
        part = rows @ mask @ columns.T >= threshold
        image[top : top + len(rows), left : left + len(columns)] = part
    return pasted


def _weights(start: np.floating, end: np.floating, size: int, length: int) -> tuple[int, np.ndarray]:
    """The first pixel around a box along an axis, and the weights [pixels, size] of a mask for it and further ones."""
    first = max(int(np.floor(start)) - 1, 0)
    last = max(min(int(np.ceil(end)) + 1, length), first)
    side = end - start
    pixels = np.arange(first, last, dtype=start.dtype) + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (pixels - start) / side
    share = np.where(np.isfinite(share), share, 0.5)  # as MMDetection's where a box has no side
    place = share * size - 0.5
    low = np.floor(place)
    upper, weights = (place - low).astype(start.dtype), np.zeros((last - first, size), start.dtype)
    for shift, part in ((0, 1 - upper), (1, upper)):
        at = low + shift
        inside = (at >= 0) & (at < size)
        weights[np.flatnonzero(inside), at[inside].astype(int)] += part[inside]
    return first, weights
