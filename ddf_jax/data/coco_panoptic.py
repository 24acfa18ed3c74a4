"""A folder of images with COCO's panoptic JSON and PNG files, in the layout of `ddf_jax.data.coco_layout`.

Of the JSON, `images` and `categories` are those of `ddf_jax.data.coco_json`, with `isthing` in each category, and
`annotations` have an `image_id`, a `file_name` and `segments_info` with `id`, `category_id` and perhaps `iscrowd`.
Anything else is an error. Things are numbered in the order of their category ids, and stuff likewise.

Masks and boxes are those of the ids in the PNG files. A segment without a pixel, or of an unknown category, is none; a
pixel whose id is not in the table is void. A crowd is no object of an example. Annotations of unknown images are left
out; images without one are too, as everything in them would be void. Both are counted in one line of the log. A PNG
that is unreadable or of another size than its image is an error; unreadable images are those of `ImageFiles`.
"""

import array
import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ddf_jax.analysis.coco_ap import Truth
from ddf_jax.analysis.panoptic_quality import VOID, Segments
from ddf_jax.data.coco_folder import CocoOptions, file_fingerprint, positions
from ddf_jax.data.coco_json import check_unique, read_categories, read_images, read_json, relative_file, whole
from ddf_jax.data.coco_layout import find_coco_split
from ddf_jax.data.decode import CorruptImageError, decode_image
from ddf_jax.data.detection_source import Labels
from ddf_jax.data.image_files import ImageFiles
from ddf_jax.data.panoptic import class_map, mask_boxes, rgb_to_ids, segment_masks
from ddf_jax.data.sources import Split
from ddf_jax.detection.rle import encode_mask
from ddf_jax.errors import DataError

_ID_LIMIT = 1 << 24  # of a colour

_log = logging.getLogger(__name__)


class CocoPanoptic:
    """The examples of one split, by index; None for an unreadable image. `image_id` is that of the file.

    Raises:
        UserError: the folder is not laid out as above.
        DataError: a file does not have COCO's form, or too many images are unreadable.
    """

    channels = ImageFiles.channels
    shape = None

    def __init__(self, folder: Path, split: Split, labels: Labels, options: CocoOptions):
        found = find_coco_split(folder.expanduser(), *options.split_name(split), "panoptic")
        assert found.segments is not None
        builder = _Builder(found.annotations)
        data = read_json(found.annotations, builder.take)
        images = read_images(found.annotations, data, options.decoding.max_pixels)
        self._table = builder.finish(data)
        self._file, self._folder, self._labels, self._decoding = (
            found.annotations, found.segments, labels, options.decoding,
        )  # fmt: skip
        self.name = str(found.annotations)
        self._set_classes(read_categories(found.annotations, data))

        places = positions(images.ids, self._table.images)
        check_unique(found.annotations, "image with an annotation", self._table.images)
        self._annotation = np.flatnonzero(places >= 0)
        kept = places[self._annotation]
        if len(kept) < max(len(places), len(images.ids)):
            _log.warning(
                "left out of %s: %d annotations of unknown images, %d images without an annotation",
                self._file, len(places) - len(kept), len(images.ids) - len(kept),
            )  # fmt: skip
        if not len(kept):
            raise DataError(f"{self._file} must have an annotation of one of its images, got none.")
        self._ids, self.sizes = images.ids[kept], images.sizes[kept]
        files = [images.files[index] for index in kept]
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
        segments = self.segments(index)[1]
        objects = ~np.asarray(segments.crowd) & (segments.labels < len(self.class_names))
        masks = segment_masks(segments.ids, segments.numbers[objects])
        example = {
            "image": image,
            "image_id": np.int32(self._ids[index]),
            "boxes": mask_boxes(masks),
            "labels": segments.labels[objects].astype(np.int32),
        }
        if self._labels.masks and not self._labels.truth_only:
            example["masks"] = masks
        if self._labels.semantic and not self._labels.truth_only:
            sizes = len(self.class_names), len(self.stuff_names)
            example["semantic"] = class_map(segments, *sizes, self._labels.semantic)
        return example

    def truth(self, index: int) -> tuple[int, Truth]:
        number, segments = self.segments(index)
        things = segments.labels < len(self.class_names)
        masks = segment_masks(segments.ids, segments.numbers[things])
        encoded = tuple(map(encode_mask, masks)) if self._labels.masks else ()
        height, width = segments.ids.shape
        labels, crowd = segments.labels[things].astype(np.int32), np.asarray(segments.crowd)[things]
        areas = masks.sum((1, 2)).astype(np.float64)
        return number, Truth((height, width), mask_boxes(masks), labels, areas, crowd, encoded)

    def segments(self, index: int) -> tuple[int, Segments]:
        annotation = self._annotation[index]
        file = self._folder / self._table.files[annotation]
        try:
            ids = rgb_to_ids(decode_image(file.read_bytes(), 3, self._decoding, upright=False))
        except (OSError, CorruptImageError) as error:
            raise DataError(f"Every image must have a readable PNG of its segments, got {file}: {error}.") from error
        if ids.shape != tuple(self.sizes[index]):
            height, width = self.sizes[index]
            raise DataError(f"{file} must have the size of its image, {height}×{width}, got {ids.shape}.")
        rows = slice(*self._table.spans[annotation])
        numbers, labels = self._table.numbers[rows], self._classes[rows]
        known = (labels >= 0) & np.isin(numbers, ids)
        order = np.argsort(labels[known] >= len(self.class_names), kind="stable")  # things first
        numbers, labels, crowd = (each[known][order] for each in (numbers, labels, self._table.crowd[rows]))
        ids = np.where(np.isin(ids, numbers), ids, VOID)
        return int(self._ids[index]), Segments(ids, numbers, labels, crowd)

    def _set_classes(self, categories: dict[int, dict[str, Any]]) -> None:
        for number, each in categories.items():
            if each.get("isthing") not in (0, 1):
                raise DataError(f"{self._file}: category {number} must have `isthing`, 0 or 1.")
        things, stuff = ([key for key, each in categories.items() if each["isthing"] == kind] for kind in (1, 0))
        if not things:
            raise DataError(f"{self._file} must have a category of things, got none.")
        self.class_names = tuple(categories[key]["name"] for key in things)
        self.stuff_names = tuple(categories[key]["name"] for key in stuff)
        self._classes = positions(np.array([*things, *stuff]), self._table.categories)


@dataclasses.dataclass(frozen=True)
class _Table:
    images: np.ndarray  # [A], the `image_id` of each annotation
    files: list[str]  # of the PNG of each
    spans: np.ndarray  # [A, 2], first and last segment but one of each
    numbers: np.ndarray  # [S], the id of each segment
    categories: np.ndarray  # [S]
    crowd: np.ndarray  # [S]


_TAKEN = object()
"""Stands for an object that was made a row."""


class _Builder:
    """Makes every segment and annotation a row as soon as it is parsed."""

    def __init__(self, file: Path):
        self._file = file
        self._images, self._spans, self._numbers, self._categories = (array.array("q") for _ in range(4))
        self._crowd = array.array("b")
        self._files: list[str] = []

    def take(self, each: dict[str, Any]) -> Any:
        if "segments_info" in each:
            return self._take_annotation(each)
        if "category_id" in each and "image_id" not in each:
            where = f"{self._file}: segment {each.get('id')!r:.60}"
            number, category = whole(where, each, "id"), whole(where, each, "category_id")
            if not 0 < number < _ID_LIMIT:
                raise DataError(f"{where} must have an `id` from 1 to 2²⁴ - 1.")
            self._numbers.append(number)
            self._categories.append(category)
            self._crowd.append(bool(each.get("iscrowd")))
            return _TAKEN
        return each

    def _take_annotation(self, each: dict[str, Any]) -> Any:
        where = f"{self._file}: annotation of image {each.get('image_id')!r:.60}"
        segments = each["segments_info"]
        if not isinstance(segments, list) or any(segment is not _TAKEN for segment in segments):
            raise DataError(f"{where} must have `segments_info` with `id` and `category_id` in each.")
        self._images.append(whole(where, each, "image_id"))
        self._files.append(relative_file(where, each))
        start, stop = len(self._numbers) - len(segments), len(self._numbers)
        if len(set(self._numbers[start:stop])) != len(segments):
            raise DataError(f"{where} must have segments with an `id` of their own, got one twice.")
        self._spans.extend((start, stop))
        return _TAKEN

    def finish(self, data: dict[str, Any]) -> _Table:
        annotations = data.get("annotations")
        if not isinstance(annotations, list) or any(each is not _TAKEN for each in annotations):
            raise DataError(f"{self._file} must have `annotations` with `segments_info`. Choose a panoptic file.")
        if len(annotations) != len(self._images):
            raise DataError(f"{self._file} must have annotations in `annotations` alone, got some elsewhere.")
        return _Table(
            np.array(self._images, np.int64),
            self._files,
            np.array(self._spans, np.int64).reshape(-1, 2),
            np.array(self._numbers, np.int64),
            np.array(self._categories, np.int64),
            np.array(self._crowd, bool),
        )
