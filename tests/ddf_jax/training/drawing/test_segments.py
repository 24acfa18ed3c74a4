"""Pictures of panoptic maps."""

import numpy as np
import pytest

from ddf_jax.training.drawing.palette import STUFF, THINGS, VOID
from ddf_jax.training.drawing.segments import draw_segments, roomiest_point

NAMES = ("ball", "pole", "floor", "wall")


def test_each_segment_has_a_colour_of_its_own_and_void_is_dark():
    ids = np.full((500, 600), 3, np.int32)  # a wall
    ids[300:] = 2  # the floor
    ids[:40], ids[100:200, 50:150], ids[100:200, 300:400] = 0, 1000, 2000  # void and two balls
    white = np.full((500, 600, 3), 255, np.uint8)
    picture = draw_segments(white, ids, NAMES, 2)
    assert picture.shape == white.shape
    assert white.min() == 255
    for (row, column), colour in {
        (20, 20): VOID,
        (80, 20): STUFF[1],
        (480, 20): STUFF[0],
        (110, 60): THINGS[0],
    }.items():
        np.testing.assert_allclose(picture[row, column], 255 + 0.65 * (np.array(colour) - 255), atol=1)
    assert (picture[110, 310] != picture[110, 60]).any()
    assert (picture[80, 230] == picture[80, 20]).all()
    assert (picture[299:301, 20] > 220).all()  # a white line between wall and floor


def test_a_map_without_segments_is_drawn():
    assert draw_segments(np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.int32), NAMES, 2).shape == (480, 640, 3)


def test_a_name_is_written_in_the_largest_region():
    mask = np.zeros((200, 300), bool)
    mask[:, :20] = True  # high, but too narrow for a name
    mask[120:180, 100:290] = True
    x, y = roomiest_point(mask)
    assert (x * 300, y * 200) == pytest.approx((195, 150), abs=6)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (2000, 3)])
def test_any_mask_with_a_pixel_has_a_point_in_it(size):
    mask = np.zeros(size, bool)
    mask[-1, -1] = True
    x, y = roomiest_point(mask)
    assert 0 < x < 1
    assert 0 < y < 1
    assert y * size[0] > size[0] * 0.9 or size[0] == 1
