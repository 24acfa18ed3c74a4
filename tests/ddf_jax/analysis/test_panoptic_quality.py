"""Panoptic quality against cases that can be computed by hand."""

import numpy as np
import pytest

from ddf_jax.analysis.panoptic_quality import PanopticQuality, Segments
from ddf_jax.errors import UserError

THING, OTHER_THING, STUFF = range(3)


def segments(ids, labels: dict[int, int], crowd: tuple[int, ...] = ()) -> Segments:
    """`labels`: the class of each id; `crowd`: the ids of crowds."""
    numbers = np.array([*labels], np.int64)
    return Segments(np.atleast_2d(ids), numbers, np.array([*labels.values()], np.int64), np.isin(numbers, crowd))


def quality(*pairs: tuple[Segments, Segments]) -> PanopticQuality:
    counts = PanopticQuality(num_things=2, num_classes=3)
    for predicted, truth in pairs:
        counts.add(predicted, truth)
    return counts


def counts_of(quality: PanopticQuality) -> list[tuple[int, int, int]]:
    """(TP, FP, FN) of each class."""
    counts = (quality.true_positives, quality.false_positives, quality.false_negatives)
    return [*zip(*(each.tolist() for each in counts), strict=True)]


def test_the_truth_itself_has_full_quality():
    truth = segments([[1, 1, 2], [3, 3, 0]], {1: THING, 2: THING, 3: STUFF})
    found = quality((truth, truth)).scores()
    assert found == {"all": (1.0, 1.0, 1.0, 2), "things": (1.0, 1.0, 1.0, 1), "stuff": (1.0, 1.0, 1.0, 1)}


def test_iou_false_and_missed_segments():
    """Stuff: 4 of 5 pixels, IoU 4/6. Things: one with IoU 3/4; one missed; one false."""
    truth = segments([1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3], {1: THING, 2: THING, 3: STUFF})
    predicted = segments([7, 7, 7, 8, 8, 9, 9, 9, 9, 9, 0], {7: THING, 8: OTHER_THING, 9: STUFF})
    found = quality((predicted, truth))
    assert counts_of(found) == [(1, 0, 1), (0, 1, 0), (1, 0, 0)]
    thing, stuff = 3 / 4, 4 / 6
    scores = found.scores()
    assert scores["things"] == pytest.approx((thing / 1.5 / 2, thing / 2, 1 / 1.5 / 2, 2))
    assert scores["stuff"] == pytest.approx((stuff, stuff, 1.0, 1))
    assert scores["all"] == pytest.approx(((thing / 1.5 + stuff) / 3, (thing + stuff) / 3, (1 / 1.5 + 1) / 3, 3))


def test_an_iou_of_one_half_is_no_match():
    truth, predicted = segments([1, 1, 0], {1: THING}), segments([1, 0, 0], {1: THING})
    assert counts_of(quality((predicted, truth)))[THING] == (0, 1, 1)


def test_void_does_not_count_in_the_union():
    """2 of 3 pixels, and three more on void: IoU 2/3, not 2/6."""
    truth, predicted = segments([1, 1, 1, 0, 0, 0], {1: THING}), segments([5, 5, 0, 5, 5, 5], {5: THING})
    found = quality((predicted, truth))
    assert counts_of(found)[THING] == (1, 0, 0)
    assert found.iou[THING] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("on_void", "false"), [(3, 0), (2, 1)])
def test_a_prediction_of_which_more_than_half_is_void_is_not_false(on_void: int, false: int):
    ids = np.arange(4) >= on_void  # the others are of stuff
    truth = segments(np.where(ids, 9, 0), {9: STUFF})
    predicted = segments([1, 1, 1, 1], {1: THING})
    assert counts_of(quality((predicted, truth)))[THING] == (0, false, 0)


@pytest.mark.parametrize(("label", "false"), [(THING, 0), (OTHER_THING, 1)])
def test_a_crowd_is_neither_missed_nor_matched_and_excuses_predictions_of_its_class(label: int, false: int):
    truth = segments([1, 1, 1, 9], {1: THING, 9: STUFF}, crowd=(1,))
    predicted = segments([4, 4, 4, 9], {4: label, 9: STUFF})
    found = quality((predicted, truth))
    assert counts_of(found)[label] == (0, false, 0)
    assert counts_of(found)[THING] == (0, 0, 0)
    assert counts_of(found)[STUFF] == (1, 0, 0)


def test_images_add_up():
    """One image with the thing found, one where it is missed: PQ = 1 / (1 + ½)."""
    truth, nothing = segments([1, 1], {1: THING}), segments([0, 0], {})
    assert quality((truth, truth), (nothing, truth)).scores()["things"] == pytest.approx((2 / 3, 1.0, 2 / 3, 1))


def test_where_no_class_occurs_there_is_no_score():
    nothing = segments([0, 0], {})
    assert quality((nothing, nothing)).scores()["all"] == (None, None, None, 0)


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (segments([1, 2], {1: THING}), "id of the prediction must be in its table, got 2"),
        (segments([0, 0], {0: THING}), "an id of its own, not 0"),
        (segments([1, 1], {1: THING})._replace(numbers=np.array([1, 1]), labels=np.array([0, 1])), "id of its own"),
        (segments([1, 1], {1: 3}), "Classes of the prediction must be from 0 to 2, got 3 to 3"),
        (segments([1, 1, 1], {1: THING}), r"must have the truth's size \(1, 2\), got \(1, 3\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(predicted: Segments, message: str):
    with pytest.raises(UserError, match=message):
        quality((predicted, segments([1, 1], {1: THING})))
