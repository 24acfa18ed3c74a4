"""From an image with objects to the arrays of a detector: resizing, flips, jitter, padding.

An example is what a source gives (`ddf_jax.data.detection_source`) until `PadObjects` makes it arrays of one shape.
Boxes, masks and maps of classes follow every change of the image. Images are resized by pillow's antialiased bilinear
filter, masks and maps by the nearest pixel centre: the box around a resized mask is the resized box up to half a pixel.
"""

import dataclasses
import functools
import logging
from typing import Any

import grain
import numpy as np
from PIL import Image

from ddf_jax.data.panoptic import IGNORED, mask_boxes

_MAPS = ("masks", "semantic")
_LEAST = 1.0  # pixels of an object that must be left, in width and in height, when it is cropped

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ResizeToFit(grain.transforms.Map):
    """Scales the image as far as its short side, its long side and the canvas allow, keeping its ratio.

    MMDetection's rule for the scale `long_side` × `short_side`: sides are rounded half up, boxes scale by the ratios of
    the rounded sides and are cut off at the image's.

    Args:
        short_side: the most that the shorter side may have in pixels.
        long_side: the most that the longer side may have.
        canvas: height and width that the image must fit into.
    """

    short_side: int
    long_side: int
    canvas: tuple[int, int]

    def map(self, element: dict[str, Any]) -> Any:
        height, width = element["image"].shape[:2]
        size = self.size(height, width)
        resized = _resize(element, size, (0, 0), size)
        return resized | {"original_size": np.array([height, width], np.int32)}

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a resized image.

        >>> ResizeToFit(800, 1333, (800, 1344)).size(480, 640)
        (800, 1067)
        """
        limits = (
            self.short_side / min(height, width),
            self.long_side / max(height, width),
            self.canvas[0] / height,
            self.canvas[1] / width,
        )
        return _scaled((height, width), min(limits), self.canvas)


@dataclasses.dataclass(frozen=True)
class LargeScaleJitter(grain.transforms.RandomMap):
    """Scales the image to a random share of what fits the canvas, then cuts a random part of the canvas' size.

    Of an object, what lies in that part is left; one with less than a pixel in width or height, or whose mask has no
    pixel there, is dropped. Where there are masks, boxes are those around what is left of them.

    Reference: Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR
    2021, Section 3.

    Args:
        canvas: height and width of the part.
        scale: least and greatest share.
    """

    canvas: tuple[int, int]
    scale: tuple[float, float] = (0.1, 2.0)

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        height, width = element["image"].shape[:2]
        fitting = min(self.canvas[0] / height, self.canvas[1] / width)
        size = _scaled((height, width), fitting * rng.uniform(*self.scale))
        part = min(size[0], self.canvas[0]), min(size[1], self.canvas[1])
        corner = tuple(int(rng.integers(whole - cut + 1)) for whole, cut in zip(size, part, strict=True))
        cropped = _resize(element, size, corner, part)
        return _visible(cropped) | {"original_size": np.array([height, width], np.int32)}


class RandomFlip(grain.transforms.RandomMap):
    """Mirrors every other example, left to right."""

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        return flip(element) if rng.random() < 0.5 else element


def flip(element: dict[str, Any]) -> dict[str, Any]:
    """Mirrors an example, left to right."""
    width = np.float32(element["image"].shape[1])
    x1, y1, x2, y2 = element["boxes"].T
    flipped = {"image": element["image"][:, ::-1], "boxes": np.stack([width - x2, y1, width - x1, y2], axis=1)}
    return element | flipped | {name: element[name][..., ::-1] for name in _MAPS if name in element}


@dataclasses.dataclass(frozen=True)
class PadObjects(grain.transforms.Map):
    """Puts the normalised image on the canvas, at its top left corner, and gives the objects' arrays one shape.

    The result has `image` float32 [H, W, 3], 0 beyond `size`; `size` and `original_size` int32 [2], height and width;
    `image_id` int32; `boxes` float32 [M, 4], `labels` int32 [M] and `known` bool [M], false where there is no object;
    and where the example has them `masks` uint8 [M, H, ⌈W/8⌉], 8 pixels of a row a byte, the first in the highest bit
    (`np.packbits`), and `semantic` uint8 [H, W], 255 beyond `size`.

    Of more than M objects the largest are kept, in their order: a large one that is not labelled would make many
    anchors negative. A process logs the first such example.

    Args:
        canvas: H and W.
        max_objects: M.
    """

    canvas: tuple[int, int]
    max_objects: int

    def map(self, element: dict[str, Any]) -> Any:
        height, width = element["image"].shape[:2]
        rows = self._rows(element)
        image = np.zeros((*self.canvas, 3), np.float32)
        image[:height, :width] = element["image"]
        boxes, labels = np.zeros((self.max_objects, 4), np.float32), np.zeros(self.max_objects, np.int32)
        boxes[: len(rows)], labels[: len(rows)] = element["boxes"][rows], element["labels"][rows]
        padded = {
            "image": image,
            "size": np.array([height, width], np.int32),
            "original_size": element["original_size"],
            "image_id": element["image_id"],
            "boxes": boxes,
            "labels": labels,
            "known": np.arange(self.max_objects) < len(rows),
        }
        if "masks" in element:
            packed = np.packbits(element["masks"][rows], axis=-1)
            masks = np.zeros((self.max_objects, self.canvas[0], -(-self.canvas[1] // 8)), np.uint8)
            masks[: len(rows), :height, : packed.shape[-1]] = packed
            padded["masks"] = masks
        if "semantic" in element:
            semantic = np.full(self.canvas, IGNORED, np.uint8)
            semantic[:height, :width] = element["semantic"]
            padded["semantic"] = semantic
        return padded | ({"mask": element["mask"]} if "mask" in element else {})

    def _rows(self, element: dict[str, Any]) -> np.ndarray:
        count = len(element["boxes"])
        if count <= self.max_objects:
            return np.arange(count)
        _warn_of_more(self.max_objects)
        areas = (element["boxes"][:, 2:] - element["boxes"][:, :2]).prod(1)
        return np.sort(np.argsort(-areas, kind="stable")[: self.max_objects])


@functools.cache
def _warn_of_more(max_objects: int) -> None:
    _log.warning("an image has more than `max_objects` = %d objects: of these the largest are kept", max_objects)


def _scaled(size: tuple[int, int], scale: float, limits: tuple[int, int] | None = None) -> tuple[int, int]:
    """Sides times `scale`, rounded half up, at least 1."""
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return (height, width) if limits is None else (min(height, limits[0]), min(width, limits[1]))


def _resize(
    element: dict[str, Any], size: tuple[int, int], corner: tuple[int, ...], part: tuple[int, int]
) -> dict[str, Any]:
    """An example scaled to a size, of which the part of a size at a corner (y, x) is kept."""
    image = element["image"]
    height, width = image.shape[:2]
    top, left = corner
    if (height, width) != size:
        image = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    image = image[top : top + part[0], left : left + part[1]]
    scale = np.array([size[1] / width, size[0] / height] * 2)
    boxes = element["boxes"] * scale - [left, top, left, top]
    boxes = np.clip(boxes, 0, [part[1], part[0]] * 2).astype(np.float32)
    rows = _nearest(height, size[0])[top : top + part[0], None]
    columns = _nearest(width, size[1])[left : left + part[1]]
    maps = {name: element[name][..., rows, columns] for name in _MAPS if name in element}
    return element | {"image": image, "boxes": boxes} | maps


def _nearest(old: int, new: int) -> np.ndarray:
    """For each of `new` pixels the one of `old` in which its centre lies."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def _visible(element: dict[str, Any]) -> dict[str, Any]:
    """An example without the objects of which nothing is left."""
    boxes = element["boxes"]
    if "masks" in element:
        boxes = mask_boxes(element["masks"])
    keep = (boxes[:, 2:] - boxes[:, :2] >= _LEAST).all(1)
    kept = {name: element[name][keep] for name in ("labels", "masks") if name in element}
    return element | {"boxes": boxes[keep]} | kept
