"""Boxes, masks and maps of classes follow the image."""

import logging
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ddf_jax.data.detection_transforms import LargeScaleJitter, PadObjects, RandomFlip, ResizeToFit, flip
from ddf_jax.data.panoptic import mask_boxes

SIDES = st.integers(1, 40)
CANVAS = (32, 64)
MARKED = 9  # a class


@st.composite
def examples(draw: Any) -> dict[str, Any]:
    """Rectangles of whole pixels. The image and `semantic` show the first object's."""
    height, width, count = draw(SIDES), draw(SIDES), draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        top, left = rng.integers(height), rng.integers(width)
        mask[top : rng.integers(top, height) + 1, left : rng.integers(left, width) + 1] = True
    image = np.zeros((height, width, 3), np.uint8)
    semantic = np.zeros((height, width), np.uint8)
    if count:
        image[masks[0]], semantic[masks[0]] = 255, MARKED
    return {
        "image": image,
        "image_id": np.int32(3),
        "boxes": mask_boxes(masks),
        "labels": np.arange(count, dtype=np.int32),
        "masks": masks,
        "semantic": semantic,
    }


def check(element: dict[str, Any], slack: float) -> None:
    """The box of each mask lies in the object's box up to `slack` pixels, and all maps agree."""
    size, count = element["image"].shape[:2], len(element["boxes"])
    assert element["semantic"].shape == size
    assert element["masks"].shape == (count, *size)
    assert element["boxes"].shape == (count, 4)
    assert element["boxes"].dtype == np.float32
    assert len(element["labels"]) == count
    boxes, around = element["boxes"], mask_boxes(element["masks"])
    drawn = element["masks"].any((1, 2))
    assert (around[drawn, :2] >= boxes[drawn, :2] - slack).all()
    assert (around[drawn, 2:] <= boxes[drawn, 2:] + slack).all()
    assert (boxes >= 0).all()
    assert (boxes <= np.array([size[1], size[0]] * 2)).all()
    np.testing.assert_array_equal(element["semantic"] == MARKED, element["masks"][element["labels"] == 0].any(0))


@hypothesis.given(examples(), st.integers(1, 80), st.integers(1, 80))
def test_resizing_keeps_boxes_around_masks_and_the_image_in_the_canvas(element: dict[str, Any], short: int, long: int):
    resized = ResizeToFit(short, long, CANVAS).map(element)
    height, width = resized["image"].shape[:2]
    assert height <= CANVAS[0]
    assert width <= CANVAS[1]
    assert min(height, width) <= max(short, 1)
    assert max(height, width) <= max(long, 1)
    np.testing.assert_array_equal(resized["original_size"], element["image"].shape[:2])
    check(resized, 0.5 + 1e-4)
    # No pixel more would have fitted.
    original = np.array(element["image"].shape[:2])
    more = (np.array([height, width]) + 1) / original
    limits = [short / original.min(), long / original.max(), *(np.array(CANVAS) / original)]
    assert more.max() > min(limits)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((427, 640), (800, 1199)), ((640, 480), (1067, 800)), ((300, 900), (444, 1333))],
)
def test_sizes_are_mmdetections(size: tuple[int, int], expected: tuple[int, int]):
    """`mmcv.rescale_size` for the scale 1333 × 800."""
    assert ResizeToFit(800, 1333, (1344, 1344)).size(*size) == expected


@hypothesis.given(examples())
def test_flipped_twice_is_the_example(element: dict[str, Any]):
    once = flip(element)
    check(once, 0)
    np.testing.assert_array_equal(once["image"][..., 0] == 255, once["semantic"] == MARKED)
    twice = flip(once)
    assert twice.keys() == element.keys()
    for name, values in element.items():
        np.testing.assert_array_equal(twice[name], values)


def test_half_of_the_examples_are_flipped():
    element = {"image": np.arange(6, dtype=np.uint8).reshape(1, 2, 3), "boxes": np.array([[0, 0, 1, 1]], np.float32)}
    flipped = [RandomFlip().random_map(element, np.random.default_rng(seed))["boxes"][0, 0] == 1 for seed in range(100)]
    assert 30 < sum(flipped) < 70


@hypothesis.given(examples(), st.integers(0, 1000))
def test_jitter_keeps_what_is_seen(element: dict[str, Any], seed: int):
    cropped = LargeScaleJitter(CANVAS).random_map(element, np.random.default_rng(seed))
    assert cropped["image"].shape[0] <= CANVAS[0]
    assert cropped["image"].shape[1] <= CANVAS[1]
    check(cropped, 0)
    assert cropped["masks"].any((1, 2)).all()
    np.testing.assert_array_equal(cropped["boxes"], mask_boxes(cropped["masks"]))
    # The boxes without masks are those of the same part of the image.
    without = {name: values for name, values in element.items() if name != "masks"}
    boxes = LargeScaleJitter(CANVAS).random_map(without, np.random.default_rng(seed))
    for label, box in zip(boxes["labels"], boxes["boxes"], strict=True):
        for around in cropped["boxes"][cropped["labels"] == label]:
            np.testing.assert_allclose(box, around, atol=0.5 + 1e-4)


def test_jitter_enlarges_and_shrinks():
    element = {
        "image": np.zeros((32, 64, 3), np.uint8),
        "boxes": np.array([[0, 0, 64, 32]], np.float32),
        "labels": np.zeros(1, np.int32),
    }
    sizes = {
        LargeScaleJitter(CANVAS).random_map(element, np.random.default_rng(seed))["image"].shape[0]
        for seed in range(50)
    }
    assert min(sizes) < 10
    assert max(sizes) == 32


@hypothesis.given(examples())
def test_padding_has_one_shape_and_the_masks_are_packed(element: dict[str, Any]):
    resized = ResizeToFit(32, 60, CANVAS).map(element)
    padded = PadObjects(CANVAS, 3).map(resized | {"image": resized["image"] + np.float32(1), "mask": np.bool_(True)})
    assert {name: (values.shape, str(values.dtype)) for name, values in padded.items()} == {
        "image": ((32, 64, 3), "float32"),
        "size": ((2,), "int32"),
        "original_size": ((2,), "int32"),
        "image_id": ((), "int32"),
        "boxes": ((3, 4), "float32"),
        "labels": ((3,), "int32"),
        "known": ((3,), "bool"),
        "masks": ((3, 32, 8), "uint8"),
        "semantic": ((32, 64), "uint8"),
        "mask": ((), "bool"),
    }
    height, width = padded["size"]
    assert (padded["image"][:height, :width] >= 1).all()
    assert padded["image"].sum() == padded["image"][:height, :width].sum()
    assert (padded["semantic"][height:] == 255).all()
    assert (padded["semantic"][:, width:] == 255).all()
    count = min(3, len(element["boxes"]))
    np.testing.assert_array_equal(padded["known"], np.arange(3) < count)
    masks = np.unpackbits(padded["masks"], axis=-1, count=64).astype(bool)
    assert not masks[count:].any()
    for label, mask, box in zip(padded["labels"][:count], masks, padded["boxes"], strict=False):
        np.testing.assert_array_equal(mask[:height, :width], resized["masks"][label])
        np.testing.assert_array_equal(box, resized["boxes"][label])
        assert mask.sum() == mask[:height, :width].sum()


def test_of_too_many_objects_the_largest_are_kept_in_their_order_and_that_is_logged(caplog: pytest.LogCaptureFixture):
    boxes = np.array([[0, 0, 2, 2], [0, 0, 9, 9], [0, 0, 1, 1], [0, 0, 5, 5]], np.float32)
    element = {
        "image": np.zeros((9, 9, 3), np.float32),
        "original_size": np.array([9, 9], np.int32),
        "image_id": np.int32(0),
        "boxes": boxes,
        "labels": np.arange(4, dtype=np.int32),
    }
    with caplog.at_level(logging.WARNING):
        padded = [PadObjects((32, 32), 2).map(element) for _ in range(2)]
    assert padded[0]["labels"].tolist() == [1, 3]
    assert len(caplog.messages) == 1
    assert "more than `max_objects` = 2 objects" in caplog.messages[0]
