"""A folder of images with COCO's JSON of instances, in the layout of `ddf_jax.data.coco_layout`.

Classes are numbered in the order of their ids, which may have gaps. What takes part, as for MMDetection:

- a file that does not have the form of `ddf_jax.data.coco_json` is an error;
- annotations of images or categories that the file does not have are left out;
- a crowd, and an annotation marked `ignore`, is no object of an example. In the truth both are crowds;
- a box that is not `usable` (outside the image, less than a pixel wide or high, or without an area) is left out of
  examples, not of the truth: COCO's evaluator counts it;
- where masks are wanted, an annotation without one that fits its image is left out of examples and truth, and logged
  when it is met: of its polygons those of less than three points do not count;
- to train on, images without an annotation and images of less than 32 pixels in width or height are left out, unless
  `empty_images`.

What is left out is counted in one line of the log. Unreadable images, and those of another size than the file states,
are those of `ImageFiles`.
"""

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ddf_jax.analysis.coco_ap import Truth
from ddf_jax.analysis.panoptic_quality import Segments
from ddf_jax.data.coco_json import Annotations, Images, read_instances
from ddf_jax.data.coco_layout import find_coco_split
from ddf_jax.data.config import DEFAULT_DECODING, Decoding
from ddf_jax.data.detection_source import Labels, usable
from ddf_jax.data.fingerprint import digest_classes
from ddf_jax.data.image_files import ImageFiles
from ddf_jax.data.sources import Split
from ddf_jax.detection.rle import MaskError, Rle, decode_rle, encode_counts, encode_polygons
from ddf_jax.errors import UserError

_LEAST_SIDE = 32  # of an image to train on

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CocoOptions:
    """How a folder is read.

    Args:
        split_names: the names of the splits to train and to evaluate on.
        max_corrupt_share: share of the images that may be unreadable.
        empty_images: whether images without an annotation, and very small ones, are trained on.
        decoding: how image files are decoded.
    """

    split_names: tuple[str, str] = ("train", "test")
    max_corrupt_share: float = 0.01
    empty_images: bool = False
    decoding: Decoding = DEFAULT_DECODING

    def split_name(self, split: Split) -> tuple[str, str]:
        """The name of a split, and the setting that it comes from."""
        return (self.split_names[0], "train_split") if split == "train" else (self.split_names[1], "eval_split")


class CocoInstances:
    """The examples of one split, by index; None for an unreadable image. `image_id` is that of the file.

    Raises:
        UserError: the folder is not laid out as above, classes of pixels are wanted, or no image is left.
        DataError: a file does not have COCO's form, or too many images are unreadable.
    """

    channels = ImageFiles.channels
    shape = None
    stuff_names: tuple[str, ...] = ()

    def __init__(self, folder: Path, split: Split, labels: Labels, options: CocoOptions = CocoOptions()):
        if labels.semantic is not None:
            raise UserError(f"{folder} must have annotations/panoptic_….json for classes of pixels, got instances.")
        found = find_coco_split(folder.expanduser(), *options.split_name(split), "instances")
        data = read_instances(found.annotations, options.decoding.max_pixels)
        self.name = str(found.annotations)
        self.class_names = tuple(data.categories.values())
        self._file = found.annotations
        self._labels = labels
        self._without_mask: set[int] = set()
        self._annotations = data.annotations
        self._classes = positions(np.array([*data.categories]), data.annotations.categories)
        self._rows = _Rows(data.annotations, data.images, self._classes)
        boxes = data.annotations.boxes
        self._boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        self._is_object = self._usable(data.images)
        kept = self._rows.kept_images(data.images, options.empty_images or split == "eval")
        self._log_counts(data.images, kept)
        if not len(kept):
            raise UserError(f"{self._file} must have an image with an object to {split} on, got none.")
        self._kept = kept
        self._ids, self.sizes = data.images.ids[kept], data.images.sizes[kept]
        files = [data.images.files[index] for index in kept]
        self._images = ImageFiles(found.images, files, options.max_corrupt_share, options.decoding, self.sizes)

    def describe(self, index: int) -> str:
        return f"{self._images.describe(index)} (image {self._ids[index]} of {self._file})"

    def fingerprint(self) -> dict[str, str]:
        return file_fingerprint(self._file, self._images)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        image = self._images[index]
        if image is None:
            return None
        rows = self._rows.of_image(self._kept[index])
        rows = rows[self._is_object[rows]]
        example = {"image": image, "image_id": np.int32(self._ids[index])}
        if self._labels.masks and not self._labels.truth_only:
            size = image.shape[:2]
            rows, found = self._masks(rows, size)
            masks = [decode_rle(rle, size) for rle in found]
            example["masks"] = np.stack(masks) if masks else np.zeros((0, *size), bool)
        labels = self._classes[rows].astype(np.int32)
        return example | {"boxes": self._boxes[rows].astype(np.float32), "labels": labels}

    def truth(self, index: int) -> tuple[int, Truth]:
        rows = self._rows.of_image(self._kept[index])
        height, width = self.sizes[index].tolist()
        masks: tuple[Rle, ...] = ()
        if self._labels.masks:
            rows, masks = self._masks(rows, (height, width))
        annotations = self._annotations
        labels, crowd = self._classes[rows].astype(np.int32), annotations.crowd[rows]
        areas = annotations.areas[rows]
        return int(self._ids[index]), Truth((height, width), self._boxes[rows], labels, areas, crowd, masks)

    def segments(self, index: int) -> tuple[int, Segments]:
        del index
        raise UserError(f"{self._file} must be a file of panoptic segmentations, got instances.")

    def _masks(self, rows: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[Rle, ...]]:
        """The masks of rows, and those of the rows that have one."""
        kept, masks = [], []
        for row in rows.tolist():
            try:
                masks.append(annotation_mask(self._annotations, row, size))
                kept.append(row)
            except MaskError as error:
                if row not in self._without_mask:
                    self._without_mask.add(row)
                    _log.warning(
                        "annotation %d of %s has no mask (%s) and is left out, number %d",
                        self._annotations.ids[row], self._file, error, len(self._without_mask),
                    )  # fmt: skip
        return np.array(kept, np.int64), tuple(masks)

    def _usable(self, images: Images) -> np.ndarray:
        """Whether each annotation is an object to train on."""
        known = self._rows.image >= 0
        found = np.zeros(len(known), bool)
        sizes = images.sizes[self._rows.image[known]]
        found[known] = usable(self._boxes[known], self._annotations.areas[known], (sizes[:, 0], sizes[:, 1]))
        return found & ~self._annotations.crowd

    def _log_counts(self, images: Images, kept: np.ndarray) -> None:
        known = self._rows.image >= 0
        crowd = self._annotations.crowd
        counts = {
            "annotations of unknown images": int((~known).sum()),
            "annotations of unknown categories": int((known & (self._classes < 0)).sum()),
            "boxes outside their image or of less than a pixel": int(
                (known & (self._classes >= 0) & ~crowd & ~self._is_object).sum()
            ),
            "images without an annotation or of less than 32 pixels": len(images.ids) - len(kept),
        }
        if any(counts.values()):
            text = ", ".join(f"{what} ({count})" for what, count in counts.items() if count)
            _log.warning("left out of %s: %s", self._file, text)


def annotation_mask(annotations: Annotations, row: int, size: tuple[int, int]) -> Rle:
    """The mask of an annotation, in an image of a size (height, width).

    Raises:
        MaskError: it has none that fits the image.
    """
    if row in annotations.runs:
        counts, stated = annotations.runs[row]
        if stated != list(size):
            raise MaskError(f"run lengths of {stated} instead of {list(size)}")
        if isinstance(counts, str):
            rle = Rle(size=list(size), counts=counts.encode(errors="replace"))
            decode_rle(rle, size)
            return rle
        if not isinstance(counts, list):
            raise MaskError("run lengths that are neither a text nor a list")
        return encode_counts(counts, size)
    spans = annotations.points[slice(*annotations.rings[row])]
    polygons = [annotations.coordinates[start:stop] for start, stop in spans if stop - start >= 6]
    return encode_polygons(polygons, size)


def file_fingerprint(file: Path, images: ImageFiles) -> dict[str, str]:
    """The content of a file of annotations and of the images."""
    with file.open("rb") as stream:
        annotations = hashlib.file_digest(stream, "sha256").hexdigest()
    digest = digest_classes(images.folder, images.files, [0] * len(images), ("images",))
    return {"annotations": annotations} | digest


class _Rows:
    """Which annotations of known categories an image has."""

    def __init__(self, annotations: Annotations, images: Images, classes: np.ndarray):
        self.image = positions(images.ids, annotations.images)
        """The position of each annotation's image, -1 where there is none."""
        counted = np.flatnonzero((self.image >= 0) & (classes >= 0))
        self._order = counted[np.argsort(self.image[counted], kind="stable")]
        self._starts = np.searchsorted(self.image[self._order], np.arange(len(images.ids) + 1))

    def of_image(self, position: int) -> np.ndarray:
        return self._order[self._starts[position] : self._starts[position + 1]]

    def kept_images(self, images: Images, empty: bool) -> np.ndarray:
        has_one = np.diff(self._starts) > 0
        return np.flatnonzero(empty | (has_one & (images.sizes.min(1) >= _LEAST_SIDE)))


def positions(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted id is among ids, -1 where it is not."""
    order = np.argsort(ids)
    places = np.minimum(np.searchsorted(ids[order], wanted), len(ids) - 1)
    return np.where(ids[order][places] == wanted, order[places], -1)
