"""Prepared TFDS datasets of images with objects, by random access and without TensorFlow."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ddf_jax.analysis.coco_ap import Truth
from ddf_jax.analysis.panoptic_quality import Segments
from ddf_jax.data.config import DEFAULT_DECODING, Decoding
from ddf_jax.data.datasets.prepared import open_split, prepared_builder
from ddf_jax.data.decode import CorruptImageError, decode_image, image_size
from ddf_jax.data.detection_source import Labels, usable
from ddf_jax.data.fingerprint import WHOLE, describe_split
from ddf_jax.data.panoptic import class_map, mask_boxes, rgb_to_ids, segment_masks
from ddf_jax.detection.rle import encode_mask
from ddf_jax.errors import DataError, UserError

_PIXEL = 1000  # boxes are read in thousandths of a pixel: TFDS rounds shares of the image to float32


class TfdsDetection:
    """The examples of one split of a prepared dataset with `image` and `objects`, such as `rooms_panoptic` or `coco`.

    Each of `objects` has a `bbox` and a `label`; `is_crowd` and `area` are read where there are. A `panoptic_image` of
    ids, with the `id` of each object and a table `stuff` of `id` and `label`, gives masks and classes of pixels; where
    masks are read, boxes are those around them. `image_id` is the example's number in the split.

    Crowds and what is not `usable` are left out of examples, not of the truth.

    Raises:
        UserError: no prepared dataset of that name, no such split, not stored for random access, not images with
            objects, or without what `labels` asks for.
    """

    channels = 3
    shape = None

    def __init__(
        self, name: str, split: str, data_dir: Path | None, labels: Labels, decoding: Decoding = DEFAULT_DECODING
    ):
        builder: Any = prepared_builder(name, data_dir)  # Any: TFDS's decorators hide its signatures
        self.name = builder.info.full_name
        self._labels = labels
        self._decoding = decoding
        self.class_names, self.stuff_names = _classes(builder.info)
        self.is_panoptic = bool(self.stuff_names)
        if (labels.masks or labels.semantic) and not self.is_panoptic:
            raise UserError(
                f"{self.name} must hold a `panoptic_image` and `stuff` for masks or classes of pixels, got "
                f"{', '.join(builder.info.features)}. Choose rooms_panoptic or a folder in COCO's layout."
            )
        panoptic = ("panoptic_image",) if self.is_panoptic else ()
        tables = ("objects", "stuff") if self.is_panoptic else ("objects",)
        self._records = open_split(builder, split, ("image", *panoptic), tables)
        self._identity = describe_split(builder.info, split)

    def describe(self, index: int) -> str:
        return f"image {index} of {self.name}"

    def fingerprint(self) -> dict[str, str]:
        return {WHOLE: self._identity}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        image = self._decode(index, record["image"])
        objects = _objects(record["objects"], image.shape[:2])
        keep = ~objects.crowd & usable(objects.boxes, objects.areas, image.shape[:2])
        example = {
            "image": image,
            "image_id": np.int32(index),
            "boxes": objects.boxes[keep],
            "labels": objects.labels[keep],
        }
        if (self._labels.masks or self._labels.semantic) and not self._labels.truth_only:
            segments = self._segments(index, record)
            if self._labels.masks:
                masks = self._masks(index, segments.ids, objects.ids[keep])
                example |= {"masks": masks, "boxes": mask_boxes(masks)}
            if self._labels.semantic:
                sizes = len(self.class_names), len(self.stuff_names)
                example["semantic"] = class_map(segments, *sizes, self._labels.semantic)
        return example

    @property
    def sizes(self) -> np.ndarray:
        raise UserError(f"`task.upright` needs a folder in COCO's layout, which states images' sizes, got {self.name}.")

    def truth(self, index: int) -> tuple[int, Truth]:
        record = self._records[index]
        with self._readable(index):
            size = image_size(record["image"], self._decoding)
        objects = _objects(record["objects"], size)
        boxes, masks = objects.boxes, ()
        if self._labels.masks:
            drawn = self._masks(index, self._ids(index, record), objects.ids)
            boxes, masks = mask_boxes(drawn), tuple(map(encode_mask, drawn))
        return index, Truth(size, boxes, objects.labels, objects.areas, objects.crowd, masks)

    def segments(self, index: int) -> tuple[int, Segments]:
        if not self.is_panoptic:
            raise UserError(f"{self.name} must hold a `panoptic_image` for panoptic segmentations, got none.")
        return index, self._segments(index, self._records[index])

    def _segments(self, index: int, record: dict[str, Any]) -> Segments:
        things, stuff = record["objects"], record["stuff"]
        crowd = np.concatenate([_column(things, "is_crowd", bool), np.zeros(len(stuff["id"]), bool)])
        numbers = np.concatenate([_column(table, "id", np.int64) for table in (things, stuff)])
        labels = [_column(things, "label", np.int64), _column(stuff, "label", np.int64) + len(self.class_names)]
        return Segments(self._ids(index, record), numbers, np.concatenate(labels), crowd)

    def _masks(self, index: int, ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        masks = segment_masks(ids, numbers)
        if not masks.any((1, 2)).all():
            raise DataError(
                f"Every object must have a pixel in `panoptic_image`, got one without in {self.describe(index)}. "
                "Prepare the dataset again."
            )
        return masks

    def _ids(self, index: int, record: dict[str, Any]) -> np.ndarray:
        return rgb_to_ids(self._decode(index, record["panoptic_image"]))

    def _decode(self, index: int, data: bytes) -> np.ndarray:
        with self._readable(index):
            return decode_image(data, self.channels, self._decoding, upright=False)  # as the boxes are

    @contextlib.contextmanager
    def _readable(self, index: int) -> Iterator[None]:
        try:
            yield
        except CorruptImageError as error:
            raise DataError(
                f"Every image must be readable, got {self.describe(index)}: {error}. Prepare the dataset again."
            ) from error


@dataclasses.dataclass(frozen=True)
class _Objects:
    boxes: np.ndarray  # [n, 4] float32
    labels: np.ndarray  # [n] int32
    areas: np.ndarray  # [n] float32
    crowd: np.ndarray  # [n] bool
    ids: np.ndarray  # [n] int64


def _objects(table: dict[str, Any], size: tuple[int, int]) -> _Objects:
    """The objects of an image of a size (height, width)."""
    height, width = size
    relative = np.asarray(table["bbox"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    boxes = np.round(relative * (width, height, width, height) * _PIXEL) / _PIXEL
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = _column(table, "area", np.float64) if "area" in table else sides.prod(1)
    return _Objects(
        boxes.astype(np.float32),
        _column(table, "label", np.int32),
        areas.astype(np.float32),
        _column(table, "is_crowd", bool) if "is_crowd" in table else np.zeros(len(boxes), bool),
        _column(table, "id", np.int64) if "id" in table else np.zeros(len(boxes), np.int64),
    )


def _column(table: dict[str, Any], name: str, dtype: Any) -> np.ndarray:
    return np.asarray(table[name], dtype).reshape(-1)


def _classes(info: tfds.core.DatasetInfo) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of things and of stuff."""
    features: Any = info.features
    try:
        image, box, label = features["image"], features["objects"]["bbox"], features["objects"]["label"]
        names = label.names if image.np_dtype == "uint8" and isinstance(box, tfds.features.BBoxFeature) else []
    except (KeyError, TypeError, AttributeError):
        names = []
    if not names:
        raise UserError(
            f"{info.full_name} must hold an 8-bit `image` and `objects`, each with a `bbox` and a named `label`, got "
            f"{' '.join(repr(features).split())}. Choose a dataset with boxes, such as rooms_panoptic."
        )
    if "panoptic_image" in features and "stuff" in features and "id" in features["objects"].feature:
        return tuple(names), tuple(features["stuff"]["label"].names)
    return tuple(names), ()
