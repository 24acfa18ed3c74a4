"""Average precision against cases that can be computed by hand."""

import numpy as np
import pytest

from ddf_jax.analysis.coco_ap import METRICS, Detections, Truth, average_precision
from ddf_jax.detection.rle import encode_mask
from ddf_jax.errors import UserError

SIZE = (40, 50)
OBJECTS = [(0, 0, 10, 10), (20, 20, 30, 30), (0, 20, 20, 40)]  # the last one a crowd


def masks(boxes):
    drawn = np.zeros((len(boxes), *SIZE), bool)
    for mask, (x1, y1, x2, y2) in zip(drawn, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    return [encode_mask(mask) for mask in drawn]


def truth(boxes=OBJECTS, labels=(0, 0, 0), crowd=(False, False, True)) -> Truth:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return Truth(SIZE, boxes, np.array(labels, np.int32), areas, np.array(crowd), masks(boxes))


def found(boxes, scores, labels=None) -> Detections:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(boxes, np.array(scores), np.zeros(len(boxes), int) if labels is None else labels, masks(boxes))


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_two_objects_one_found_exactly_partly_and_one_false(kind):
    """In the order of scores: right, on the crowd, which counts for nothing, false, and with an IoU of .72.

    Precision is 1 up to a recall of ½, 51 of 101 points) and then 2/3 (50 points) where the third counts, else 0.
    """
    result = average_precision(
        {7: truth()},
        {7: found([(0, 0, 10, 10), (40, 0, 48, 8), (20, 20, 29, 28), (0, 20, 20, 30)], [0.9, 0.8, 0.7, 0.85])},
        num_classes=1,
        kind=kind,
    )
    both, one = (51 + 50 * 2 / 3) / 101, 51 / 101
    mean = (5 * both + 5 * one) / 10  # up to an IoU of .7, and from .75 on
    assert list(result.metrics) == list(METRICS)
    expected = {"ap": mean, "ap50": both, "ap75": one, "ap_small": mean, "ap_medium": None, "ap_large": None}
    recall = {"ar1": 0.5, "ar10": 0.75, "ar100": 0.75, "ar_small": 0.75, "ar_medium": None, "ar_large": None}
    assert result.metrics == pytest.approx(expected | recall, abs=1e-12)
    assert result.by_class == pytest.approx([mean], abs=1e-12)


def test_scores_are_means_over_the_classes_that_occur_and_sizes_are_those_of_the_truth():
    truths = {1: truth([(0, 0, 40, 40)], [2], [False]), 2: truth([], [], [])}
    detections = {1: found([(0, 0, 40, 40)], [0.5], np.array([2])), 2: found([(0, 0, 5, 5)], [0.4], np.array([1]))}
    result = average_precision(truths, detections, num_classes=4)
    assert result.by_class == [None, None, pytest.approx(1.0), None]
    assert result.metrics["ap"] == result.metrics["ap_medium"] == pytest.approx(1.0)
    assert result.metrics["ap_small"] is result.metrics["ap_large"] is None


def test_a_detection_without_an_object_in_another_image_is_false():
    """It is above the right one: precision is ½ at every recall."""
    truths = {1: truth(OBJECTS[:1], [0], [False]), 2: truth([], [], [])}
    detections = {1: found([(0, 0, 10, 10)], [0.5]), 2: found([(0, 0, 5, 5)], [0.9])}
    assert average_precision(truths, detections, num_classes=1).metrics["ap"] == pytest.approx(0.5)


def test_nothing_found_is_0_and_nothing_to_find_is_no_score():
    assert average_precision({1: truth()}, {}, num_classes=1).metrics["ap"] == 0.0
    assert set(average_precision({1: truth([], [], [])}, {}, num_classes=1).metrics.values()) == {None}


def test_nothing_is_printed(capsys):
    average_precision({1: truth()}, {1: found([(0, 0, 9, 9)], [1.0])}, num_classes=1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("truths", "detections", "message"),
    [
        ({}, {}, "must be an image"),
        ({1: truth()}, {2: found([], [])}, "got 1 others, such as 2"),
        ({1: truth()}, {1: found([(0, 0, 1, 1)], [float("nan")])}, "finite numbers, got others in image 1"),
        ({1: truth()}, {1: found([(0, 0, 1, 1)], [1.0], np.array([1]))}, "from 0 to 0, got 1 to 1 in the detections"),
        ({1: truth()._replace(masks=())}, {}, "got 0 for 3 in the truth of image 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(truths, detections, message):
    with pytest.raises(UserError, match=message):
        average_precision(truths, detections, num_classes=1, kind="mask")
