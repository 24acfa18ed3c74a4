"""COCO's average precision and recall of boxes and masks, by COCO's own evaluator (pycocotools).

Definition: https://cocodataset.org/#detection-eval. Crowds count neither as missed nor, where a detection lies on one,
as wrong.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ddf_jax.detection.rle import Rle
from ddf_jax.errors import UserError

METRICS = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
"""COCO's twelve numbers in its order: the mean over IoUs from .5 to .95; at .5 and .75; for objects of less than 32²,
up to 96² and more pixels; and recall with 1, 10 and 100 detections an image."""


class Truth(NamedTuple):
    """The objects of one image, crowds included.

    Args:
        size: height and width of the image in pixels.
        boxes: x1, y1, x2, y2 in pixels [N, 4].
        labels: classes from 0 [N].
        areas: pixels of each object, which decide whether it is small, medium or large [N].
        crowd: whether it stands for a crowd of objects [N].
        masks: of each object; empty where there are none.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    masks: Sequence[Rle] = ()


class Detections(NamedTuple):
    """What was found in one image.

    Args:
        boxes: x1, y1, x2, y2 in pixels of the image [N, 4].
        scores: [N].
        labels: classes from 0 [N].
        masks: of each detection; empty where there are none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[Rle] = ()


class Precision(NamedTuple):
    """Scores from 0 to 1, None where no object is of that size or class.

    Args:
        metrics: `METRICS` by name.
        by_class: `ap` of each class.
    """

    metrics: dict[str, float | None]
    by_class: list[float | None]


def average_precision(
    truths: Mapping[int, Truth],
    detections: Mapping[int, Detections],
    *,
    num_classes: int,
    kind: Literal["box", "mask"] = "box",
) -> Precision:
    """COCO's twelve numbers over all images of `truths`.

    Args:
        truths: the objects of each image, by the image's number.
        detections: what was found, by the same numbers; an image that is left out has none.
        num_classes: how many classes there are.
        kind: whether the IoU is that of boxes or of masks.

    Raises:
        UserError: there is no image, detections are of an unknown image or have no masks where these are compared, a
            score is not a finite number, or a label is not a class.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    _check(truths, detections, num_classes, kind)
    images = [{"id": key, "height": truth.size[0], "width": truth.size[1]} for key, truth in truths.items()]
    shared = {"images": images, "categories": [{"id": label} for label in range(num_classes)]}
    sides: tuple[Any, Any] = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress, but standard output may have to be JSON
        for side, objects in zip(sides, (_truths(truths, kind), _found(detections, kind)), strict=True):
            side.dataset = {**shared, "annotations": objects}
            side.createIndex()
        evaluator: Any = COCOeval(*sides, iouType="bbox" if kind == "box" else "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    of_class = evaluator.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class
    return Precision(
        {name: _score(value) for name, value in zip(METRICS, evaluator.stats.tolist(), strict=True)},
        [_score(float(of_class[:, :, label].mean())) for label in range(num_classes)],
    )


def _score(value: float) -> float | None:
    return None if value < 0 else value  # -1 where there is nothing to find


def _truths(truths: Mapping[int, Truth], kind: str) -> list[dict[str, Any]]:
    objects = []
    for image, truth in truths.items():
        for row in range(len(truth.labels)):
            objects.append(
                {
                    **_object(image, len(objects), truth, row, kind),
                    "area": float(truth.areas[row]),
                    "iscrowd": int(truth.crowd[row]),
                }
            )
    return objects


def _found(detections: Mapping[int, Detections], kind: str) -> list[dict[str, Any]]:
    from pycocotools import mask as coco_mask

    objects = []
    for image, found in detections.items():
        for row in range(len(found.labels)):
            each = _object(image, len(objects), found, row, kind)
            area = each["bbox"][2] * each["bbox"][3] if kind == "box" else float(coco_mask.area(found.masks[row]))
            objects.append({**each, "area": area, "iscrowd": 0, "score": float(found.scores[row])})
    return objects


def _object(image: int, count: int, rows: Truth | Detections, row: int, kind: str) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(value) for value in rows.boxes[row])
    found = {
        "id": count + 1,  # the evaluator takes 0 for no match
        "image_id": image,
        "category_id": int(rows.labels[row]),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
    }
    return found | {"segmentation": rows.masks[row]} if kind == "mask" else found


def _check(truths: Mapping[int, Truth], detections: Mapping[int, Detections], num_classes: int, kind: str) -> None:
    if not truths:
        raise UserError("There must be an image to evaluate on, got none.")
    if unknown := sorted(detections.keys() - truths.keys()):
        raise UserError(f"Detections must be of images of the truth, got {len(unknown)} others, such as {unknown[0]}.")
    for name, images in (("truth", truths), ("detections", detections)):
        for image, rows in images.items():
            labels = np.asarray(rows.labels)
            if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
                raise UserError(
                    f"Labels must be from 0 to {num_classes - 1}, got {labels.min()} to {labels.max()} in the {name} "
                    f"of image {image}."
                )
            if kind == "mask" and len(rows.masks) != len(labels):
                raise UserError(
                    f"Every object must have a mask, got {len(rows.masks)} for {len(labels)} in the {name} of image "
                    f"{image}."
                )
    for image, found in detections.items():
        if not np.isfinite(found.scores).all() or not np.isfinite(found.boxes).all():
            raise UserError(f"Scores and boxes must be finite numbers, got others in image {image}.")
