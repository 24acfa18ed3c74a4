"""COCO's JSON of instances as compact arrays, read object by object: a file of 450 MB needs no 4 GB of Python objects.

Format: https://cocodataset.org/#format-data. What a file must have, or a DataError names the file and the number of the
image, category or annotation:

- `images` with a whole `id` of its own below 2³¹, `file_name` below the folder of images, `height` and `width`;
- `categories` with an `id` of its own and a `name`;
- `annotations` with an `id` of its own, `image_id`, `category_id` and `bbox` (x, y, width and height, below 10⁹);
  `area` (else that of the box), `iscrowd`, `ignore` and `segmentation` may be there.
"""

import array
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import numpy as np

from ddf_jax.errors import DataError, one_line

_ID_LIMIT = 1 << 31
_NAME_LIMIT = 255  # bytes of a file's name that systems allow
_NUMBER_LIMIT = 1e9  # no coordinate or area of an image is as large


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a file, N of them, in its order.

    Args:
        ids: int64 [N].
        files: relative to the folder of images, in posix form.
        sizes: int64 [N, 2], height and width.
    """

    ids: np.ndarray
    files: list[str]
    sizes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The annotations of a file, A of them, in its order.

    Args:
        ids: int64 [A].
        images: the `image_id` of each, int64 [A].
        categories: the `category_id` of each, int64 [A].
        boxes: x, y, width and height, float64 [A, 4].
        areas: float64 [A].
        crowd: of a crowd, or marked `ignore`: bool [A].
        rings: first and last polygon but one of each, int64 [A, 2].
        points: first and last coordinate but one of each polygon, int64 [R, 2].
        coordinates: x and y in turn, float64; a polygon of other things than numbers is one nan.
        runs: the row of each that has run lengths -> its `counts` and `size`, as they are in the file.
    """

    ids: np.ndarray
    images: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    rings: np.ndarray
    points: np.ndarray
    coordinates: np.ndarray
    runs: dict[int, tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Instances:
    """A file of instances. `categories`: ids, in ascending order, to names."""

    images: Images
    annotations: Annotations
    categories: dict[int, str]


def read_instances(file: Path, max_pixels: int) -> Instances:
    """Reads a file of instances.

    Raises:
        DataError: it cannot be read, is no such file, or does not have what the module states.
    """
    builder = _Builder(file)
    data = read_json(file, builder.take)
    images = read_images(file, data, max_pixels)
    if any(each is not _TAKEN for each in _list(file, data, "annotations")):
        other = next(each for each in data["annotations"] if each is not _TAKEN)
        raise DataError(
            f"{file} must have annotations with `image_id`, `category_id` and `bbox`, got {_short(other)}. Choose a "
            "file of instances."
        )
    if len(builder.ids) != len(data["annotations"]):
        raise DataError(f"{file} must have annotations in `annotations` alone, got some elsewhere.")
    categories = read_categories(file, data)
    annotations = builder.finish()
    check_unique(file, "annotation", annotations.ids)
    return Instances(images, annotations, {number: each["name"] for number, each in categories.items()})


def read_json(file: Path, hook: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The object in a file; each object in it is what `hook` makes of it, innermost first.

    Raises:
        DataError: the file is missing, cut short, no JSON, or no object.
    """
    try:
        data = json.loads(file.read_text("utf-8-sig"), object_hook=hook)
    except DataError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} must be a JSON file in COCO's form, got {one_line(error)}.") from error
    if not isinstance(data, dict):
        raise DataError(f"{file} must hold a JSON object, got a {type(data).__name__}.")
    return data


def read_images(file: Path, data: dict[str, Any], max_pixels: int) -> Images:
    """The `images` of a file's object."""
    ids, files, sizes = array.array("q"), [], array.array("q")
    for each in _list(file, data, "images"):
        where = _where(file, "image", each)
        number, height, width = (whole(where, each, name) for name in ("id", "height", "width"))
        if not 0 <= number < _ID_LIMIT:
            raise DataError(f"{where} must have an `id` from 0 to 2³¹ - 1, got {number}.")
        if min(height, width) < 1 or height * width > max_pixels:
            raise DataError(f"{where} must have 1 to `data.max_pixels` = {max_pixels} pixels, got {height}×{width}.")
        ids.append(number)
        files.append(relative_file(where, each))
        sizes.extend((height, width))
    check_unique(file, "image", np.array(ids))
    if not files:
        raise DataError(f"{file} must have an image, got none.")
    return Images(np.array(ids, np.int64), files, np.array(sizes, np.int64).reshape(-1, 2))


def read_categories(file: Path, data: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The `categories` of a file's object by their ids, in ascending order."""
    found = {}
    for each in _list(file, data, "categories"):
        where = _where(file, "category", each)
        number = whole(where, each, "id")
        if number in found:
            raise DataError(f"{where} must have an `id` of its own, got one twice.")
        if not is_text(each.get("name")):
            raise DataError(f"{where} must have a `name`, got {_short(each.get('name'))}.")
        found[number] = each
    if not found:
        raise DataError(f"{file} must have a category, got none.")
    return dict(sorted(found.items()))


def check_unique(file: Path, kind: str, ids: np.ndarray) -> None:
    """Refuses ids that occur twice."""
    values, counts = np.unique(ids, return_counts=True)
    if len(values) != len(ids):
        raise DataError(f"{file}: every {kind} must have an `id` of its own, got {values[counts > 1][0]} twice.")


def relative_file(where: str, each: dict[str, Any]) -> str:
    """The `file_name` of an image, which may not lead out of the folder of images."""
    name = each.get("file_name")
    path = PurePosixPath(name) if is_text(name) else PurePosixPath()
    too_long = any(len(part.encode()) > _NAME_LIMIT for part in path.parts)
    if not path.parts or path.is_absolute() or too_long or ".." in path.parts or {"\0", "\\"} & {*str(path)}:
        raise DataError(f"{where} must have a `file_name` below the folder of images, got {_short(name)}.")
    return path.as_posix()


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a text that can be written as UTF-8, which not all of JSON's can."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def whole(where: str, each: dict[str, Any], name: str) -> int:
    """A whole number of an object."""
    value = each.get(name)
    if type(value) is not int or abs(value) >= 1 << 63:
        raise DataError(f"{where} must have a whole number as `{name}`, got {_short(value)}.")
    return value


def numbers(where: str, each: dict[str, Any], name: str, count: int) -> Sequence[float]:
    """So many numbers of an object."""
    value = each.get(name)
    if not isinstance(value, list) or len(value) != count or not all(map(_is_number, value)):
        raise DataError(f"{where} must have {count} numbers below 10⁹ as `{name}`, got {_short(value)}.")
    return value


_TAKEN = object()
"""Stands for an annotation that was made a row."""


class _Builder:
    """Makes every annotation a row as soon as it is parsed."""

    def __init__(self, file: Path):
        self._file = file
        self.ids, self._images, self._categories = (array.array("q") for _ in range(3))
        self._boxes, self._areas, self._coordinates = (array.array("d") for _ in range(3))
        self._crowd = array.array("b")
        self._rings, self._points = array.array("q"), array.array("q")
        self._runs: dict[int, tuple[Any, Any]] = {}

    def take(self, each: dict[str, Any]) -> Any:
        if not ("image_id" in each and "category_id" in each and "bbox" in each):
            return each
        where = _where(self._file, "annotation", each)
        number, image, category = (whole(where, each, name) for name in ("id", "image_id", "category_id"))
        box = numbers(where, each, "bbox", 4)
        area = each.get("area", box[2] * box[3])
        if not _is_number(area):
            raise DataError(f"{where} must have a number below 10⁹ as `area`, got {_short(area)}.")
        self._take_segmentation(each.get("segmentation"))
        self.ids.append(number)
        self._images.append(image)
        self._categories.append(category)
        self._boxes.extend(box)
        self._areas.append(area)
        self._crowd.append(bool(each.get("iscrowd")) or bool(each.get("ignore")))
        return _TAKEN

    def _take_segmentation(self, segmentation: Any) -> None:
        self._rings.append(len(self._points) // 2)
        if isinstance(segmentation, dict):
            self._runs[len(self.ids)] = segmentation.get("counts"), segmentation.get("size")
        for polygon in segmentation if isinstance(segmentation, list) else ():
            start = len(self._coordinates)
            try:
                self._coordinates.extend(polygon)
            except (TypeError, OverflowError):
                del self._coordinates[start:]
                self._coordinates.append(math.nan)
            self._points.extend((start, len(self._coordinates)))
        self._rings.append(len(self._points) // 2)

    def finish(self) -> Annotations:
        return Annotations(
            np.array(self.ids, np.int64),
            np.array(self._images, np.int64),
            np.array(self._categories, np.int64),
            np.array(self._boxes).reshape(-1, 4),
            np.array(self._areas),
            np.array(self._crowd, bool),
            np.array(self._rings, np.int64).reshape(-1, 2),
            np.array(self._points, np.int64).reshape(-1, 2),
            np.array(self._coordinates),
            self._runs,
        )


def _list(file: Path, data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    if not isinstance(value, list):
        keys = ", ".join(sorted(map(str, data))[:9]) or "nothing"
        raise DataError(f"{file} must have a list `{name}` as COCO's files, got {keys}.")
    return value


def _where(file: Path, kind: str, each: Any) -> str:
    """The file and the number of one of its objects, for errors."""
    if not isinstance(each, dict):
        raise DataError(f"{file}: every {kind} must be a JSON object, got {_short(each)}.")
    return f"{file}: {kind} {_short(each.get('id'))}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _NUMBER_LIMIT


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
