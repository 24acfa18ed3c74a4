"""Sources of images with objects: what they give, and which objects count.

An example is `{"image": uint8 [H, W, 3], "image_id": int32, "boxes": float32 [n, 4], "labels": int32 [n]}` and, where
they are wanted, `"masks": bool [n, H, W]` and `"semantic": uint8 [H, W]`. Boxes are x1, y1, x2, y2 in pixels.
"""

import dataclasses
from typing import Any, Literal, Protocol

import numpy as np

from ddf_jax.analysis.coco_ap import Truth
from ddf_jax.analysis.panoptic_quality import Segments
from ddf_jax.data.sources import Source


@dataclasses.dataclass(frozen=True)
class Labels:
    """What of an example is read in addition to boxes.

    Args:
        masks: masks of the objects.
        semantic: a map of classes, 255 where a pixel counts for none. `stuff`: the S classes of stuff from 0, and S for
            all things (Panoptic FPN). `all`: things from 0, then stuff (HTC).
    """

    masks: bool = False
    semantic: Literal["stuff", "all"] | None = None
    truth_only: bool = False


class DetectionSource(Source, Protocol):
    """Examples whose objects are of `class_names`; crowds are left out of them, but not of the truth."""

    stuff_names: tuple[str, ...]
    """Classes of what has no instances, empty where it is not labelled."""

    @property
    def sizes(self) -> np.ndarray:
        """Height and width of each image [N, 2].

        Raises:
            UserError: they are not known before the images are decoded.
        """
        ...

    def truth(self, index: int) -> tuple[int, Truth]:
        """An example's `image_id` and all its objects, with masks where they are wanted, in its original pixels."""
        ...

    def segments(self, index: int) -> tuple[int, Segments]:
        """An example's `image_id` and panoptic segmentation: things from 0, then stuff.

        Raises:
            UserError: the data have none.
        """
        ...


def usable(boxes: np.ndarray, areas: np.ndarray, size: tuple[Any, Any]) -> np.ndarray:
    """Which boxes [n, 4] are objects of an image, as MMDetection decides: bool [n].

    Those that overlap the image, are at least a pixel wide and high, and have an area [n].

    Args:
        boxes: x1, y1, x2, y2 in pixels.
        areas: of each object.
        size: height and width of the image, or of each box' image [n].
    """
    limits = np.stack([size[1], size[0]], axis=-1)
    inside = np.minimum(boxes[:, 2:], limits) - np.maximum(boxes[:, :2], 0)
    sides = boxes[:, 2:] - boxes[:, :2]
    return (inside > 0).all(1) & (sides >= 1).all(1) & (areas > 0)
