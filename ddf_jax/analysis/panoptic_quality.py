"""Panoptic quality: how well the segments of an image are found, told apart and drawn.

Kirillov et al., "Panoptic Segmentation", CVPR 2019; details as in `panopticapi`, COCO's evaluator.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from ddf_jax.errors import UserError

VOID = 0
"""The id of pixels that belong to no segment."""


class Segments(NamedTuple):
    """A panoptic segmentation of one image.

    Args:
        ids: the id of the segment of each pixel, 0 where there is none [H, W].
        numbers: the ids of the segments [N].
        labels: their classes from 0, things first [N].
        crowd: whether a segment stands for a crowd of things [N]; of the truth only.
    """

    ids: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray | None = None


class Quality(NamedTuple):
    """Means over the classes that occur in the truth or the prediction, from 0 to 1; None where no class does.

    Args:
        pq: panoptic quality.
        sq: segmentation quality, the mean IoU of matched segments.
        rq: recognition quality, the F1 score of segments.
        classes: how many classes occur.
    """

    pq: float | None
    sq: float | None
    rq: float | None
    classes: int


@dataclasses.dataclass
class PanopticQuality:
    r"""Counts matches image by image. For each class

    .. math:: PQ = \frac{\sum_{TP} IoU}{TP + FP / 2 + FN / 2}, \quad SQ = \frac{\sum_{TP} IoU}{TP}, \quad
       RQ = \frac{TP}{TP + FP / 2 + FN / 2}

    A predicted and a true segment of one class match where their IoU exceeds .5; at most one pair can. Void pixels of
    the truth do not count in the union. A crowd is neither matched nor missed. An unmatched prediction is not false
    where more than half of it lies on void and on crowds of its class. A segment without a pixel is none.

    Args:
        num_things: classes below it are things.
        num_classes: things and stuff.
    """

    num_things: int
    num_classes: int

    def __post_init__(self) -> None:
        self.iou = np.zeros(self.num_classes)
        """Of matched segments, the sum for each class."""
        self.true_positives, self.false_positives, self.false_negatives = np.zeros((3, self.num_classes), np.int64)

    def add(self, predicted: Segments, truth: Segments) -> None:
        """Counts one image.

        Raises:
            UserError: the sizes differ, an id has no class or two, or a class is none.
        """
        for name, segments in (("prediction", predicted), ("truth", truth)):
            self._check(name, segments)
        if predicted.ids.shape != truth.ids.shape:
            raise UserError(f"The prediction must have the truth's size {truth.ids.shape}, got {predicted.ids.shape}.")
        overlap = _overlaps(truth, predicted)  # rows: void, then true segments; columns likewise predicted ones
        areas, true_areas = overlap[:, 1:].sum(0), overlap[1:].sum(1)
        crowd = np.zeros(len(truth.numbers), bool) if truth.crowd is None else np.asarray(truth.crowd, bool)
        same = np.asarray(truth.labels)[:, None] == np.asarray(predicted.labels)[None]

        inside, void = overlap[1:, 1:], overlap[0, 1:]
        union = true_areas[:, None] + areas[None] - inside - void[None]
        iou = inside / np.maximum(union, 1)
        match = same & ~crowd[:, None] & (iou > 0.5)
        ignored = void + np.sum(inside, axis=0, where=same & crowd[:, None])
        missed = ~match.any(1) & ~crowd & (true_areas > 0)
        false = ~match.any(0) & (areas > 0) & (ignored <= 0.5 * areas)

        rows, columns = np.nonzero(match)
        np.add.at(self.iou, np.asarray(truth.labels)[rows], iou[rows, columns])
        for counts, labels in (
            (self.true_positives, np.asarray(truth.labels)[rows]),
            (self.false_negatives, np.asarray(truth.labels)[missed]),
            (self.false_positives, np.asarray(predicted.labels)[false]),
        ):
            np.add.at(counts, labels, 1)

    def scores(self) -> dict[str, Quality]:
        """Over the classes of `all`, `things` and `stuff`."""
        spans = {"all": (0, self.num_classes), "things": (0, self.num_things), "stuff": (self.num_things, None)}
        return {name: self._mean(slice(*span)) for name, span in spans.items()}

    def _mean(self, span: slice) -> Quality:
        iou, matched = self.iou[span], self.true_positives[span]
        weight = matched + 0.5 * (self.false_positives[span] + self.false_negatives[span])
        occurs = weight > 0
        if not occurs.any():
            return Quality(None, None, None, 0)
        iou, matched, weight = iou[occurs], matched[occurs], weight[occurs]
        means = (iou / weight, iou / np.maximum(matched, 1), matched / weight)
        pq, sq, rq = (float(values.mean()) for values in means)
        return Quality(pq, sq, rq, int(occurs.sum()))

    def _check(self, name: str, segments: Segments) -> None:
        numbers, labels = np.asarray(segments.numbers), np.asarray(segments.labels)
        if len({*numbers.tolist()} - {VOID}) != len(labels):
            raise UserError(
                f"Every segment of the {name} must have an id of its own, not {VOID}, and a class, got the ids "
                f"{numbers.tolist()} and the classes {labels.tolist()}."
            )
        if unknown := {*np.unique(segments.ids).tolist()} - {VOID, *numbers.tolist()}:
            raise UserError(f"Every id of the {name} must be in its table, got {min(unknown)}.")
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise UserError(
                f"Classes of the {name} must be from 0 to {self.num_classes - 1}, got {labels.min()} to {labels.max()}."
            )


def _overlaps(truth: Segments, predicted: Segments) -> np.ndarray:
    """Pixels that each pair of true and predicted segments share [1 + N, 1 + M]; the first of each is void."""
    places = []
    for segments in (truth, predicted):
        numbers = np.concatenate([[VOID], np.asarray(segments.numbers, np.int64)])
        order = np.argsort(numbers)
        places.append((order[np.searchsorted(numbers, segments.ids.reshape(-1), sorter=order)], len(numbers)))
    (rows, height), (columns, width) = places
    return np.bincount(rows * width + columns, minlength=height * width).reshape(height, width)
