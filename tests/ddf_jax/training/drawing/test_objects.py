"""Pictures of objects."""

from typing import Any

import numpy as np
import pytest

from ddf_jax.detection.rle import encode_mask
from ddf_jax.training.drawing.objects import draw_objects, object_colours
from ddf_jax.training.drawing.palette import THINGS

NAMES = ("ball", "pole")
BOXES = np.array([[20.0, 20, 60, 50], [10.5, 30.25, 30, 79]])


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)


def drawn(image: np.ndarray, **options: Any) -> np.ndarray:
    return draw_objects(image, BOXES, np.array([1, 0]), NAMES, **options)


def test_the_image_itself_is_not_drawn_on(image):
    before = image.copy()
    masks = [encode_mask(np.ones((80, 100), bool))] * 2
    assert drawn(image, scores=[0.9, 0.6], masks=masks).shape == (480, 600, 3)
    np.testing.assert_array_equal(image, before)
    large = np.zeros((500, 500, 3), np.uint8)
    assert drawn(large).shape == large.shape
    assert not large.any()


def test_without_objects_the_picture_is_the_image(image):
    large = np.repeat(np.repeat(image, 7, 0), 7, 1)
    np.testing.assert_array_equal(draw_objects(large, np.zeros((0, 4)), [], NAMES, masks=[]), large)


def test_a_box_is_drawn_on_its_sides_and_only_there():
    black = np.zeros((600, 600, 3), np.uint8)
    picture = draw_objects(black, np.array([[100.0, 200, 400, 500]]), [0], NAMES)
    for row, column in ((350, 100), (350, 400), (200, 350), (500, 250)):
        side = picture[row - 1 : row + 1, column - 1 : column + 1]
        assert (side == THINGS[0]).all()
    assert not picture[210:490, 110:390].any()
    assert not picture[:170].any()


def test_a_box_that_covers_the_image_or_more_has_its_lines_within():
    picture = draw_objects(np.zeros((600, 600, 3), np.uint8), np.array([[-20.0, 0, 600, 700]]), [0], NAMES)
    for line in (picture[300:, 0], picture[300:, -1], picture[-1], picture[0, 300:]):
        assert (line == THINGS[0]).all(-1).mean() > 0.98  # but for the round corners


def test_a_mask_is_translucent_and_a_small_object_is_drawn_over_a_large_one():
    white = np.full((600, 600, 3), 255, np.uint8)
    boxes = np.array([[250.0, 250, 350, 350], [100, 100, 500, 500]])
    masks = []
    for x1, y1, x2, y2 in boxes.astype(int):
        masks.append(np.zeros((600, 600), bool))
        masks[-1][y1:y2, x1:x2] = True
    picture = draw_objects(white, boxes, [0, 1], NAMES, masks=[encode_mask(mask) for mask in masks])
    large = 255 + 0.4 * (np.array(THINGS[1]) - 255)
    np.testing.assert_allclose(picture[200, 200], large, atol=1)
    np.testing.assert_allclose(picture[300, 300], large + 0.4 * (np.array(THINGS[0]) - large), atol=2)
    outline = np.abs(picture[300, 249:251].astype(int) - THINGS[0])
    assert outline.max() < 30


def test_objects_of_a_class_have_shades_of_its_colour():
    colours = object_colours([1, 0, 1, 1])
    assert colours[:2] == [THINGS[1], THINGS[0]]
    assert len({*colours}) == 4


def test_the_size_of_a_panel_is_bounded(image):
    assert drawn(image, largest=50).shape == (40, 50, 3)
