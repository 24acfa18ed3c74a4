"""A picture of an evaluation: the objects that a detector finds next to those that are there."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ddf_jax.data.info import DataInfo

_DRAWN = 4  # images
_SCORE = 0.5  # the least of a drawn object
_SIDE, _GAP = 640, 8  # pixels: the most of a panel's longer side, and between panels


def draw_detections(batch: Mapping[str, np.ndarray], find: Callable[[int], Mapping[str, Any]], info: DataInfo) -> bytes:
    """The first images of a batch, one a row: the objects found, and to the right the boxes of the true ones. PNG.

    Args:
        batch: of evaluation; rows of padding are not drawn.
        find: gives the objects of a row: `boxes` in the batch's pixels, `scores`, `labels`, and `masks` or None.
        info: the run's data.
    """
    from ddf_jax.data.decode import encode_png

    rows = np.flatnonzero(batch["mask"])[:_DRAWN].tolist()
    pairs = [_pair(batch, row, find(row), info) for row in rows]
    height = sum(len(pair) + _GAP for pair in pairs) - _GAP
    sheet = np.full((height, max(pair.shape[1] for pair in pairs), 3), 255, np.uint8)
    top = 0
    for pair in pairs:
        sheet[top : top + len(pair), : pair.shape[1]] = pair
        top += len(pair) + _GAP
    return encode_png(sheet).getvalue()


def _pair(batch: Mapping[str, np.ndarray], row: int, found: Mapping[str, Any], info: DataInfo) -> np.ndarray:
    """Objects found and true objects of one image, side by side."""
    from ddf_jax.data.transforms import Normalize
    from ddf_jax.training.drawing.objects import draw_objects

    height, width = batch["size"][row].tolist()
    pixels = Normalize(info.channels).undo(batch["image"][row, :height, :width])
    image = np.rint(255 * pixels).astype(np.uint8)
    likely = np.flatnonzero(np.asarray(found["scores"]) >= _SCORE).tolist()
    scores, labels = ([found[name][index] for index in likely] for name in ("scores", "labels"))
    boxes = np.asarray(found["boxes"], np.float32).reshape(-1, 4)[likely]
    masks = None if found["masks"] is None else [found["masks"][index] for index in likely]
    known, names = batch["known"][row], info.class_names
    prediction = draw_objects(image, boxes, labels, names, scores=scores, masks=masks, largest=_SIDE)
    truth = draw_objects(image, batch["boxes"][row][known], batch["labels"][row][known], names, largest=_SIDE)
    return np.concatenate([prediction, np.full((len(truth), _GAP, 3), 255, np.uint8), truth], axis=1)
