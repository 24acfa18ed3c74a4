"""The canvas: its size, and shapes as distances to an outline."""

import numpy as np
import pytest

from ddf_jax.training.drawing.canvas import Canvas

GREY = (128, 128, 128)
RED = (255, 0, 0)


def plain(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


@pytest.mark.parametrize(
    ("size", "largest", "expected"),
    [
        ((48, 64), None, (480, 640)),
        ((600, 800), None, (600, 800)),
        ((10, 1000), None, (41, 4096)),  # a longer side is not enlarged beyond 4096
        ((10, 5000), None, (10, 5000)),
        ((48, 64), 320, (240, 320)),
        ((1200, 800), 600, (600, 400)),
        ((1, 1), None, (480, 480)),
    ],
)
def test_small_images_are_enlarged_and_large_ones_only_reduced_where_that_is_asked_for(size, largest, expected):
    canvas = Canvas(plain(*size), largest=largest)
    assert (canvas.height, canvas.width) == expected
    assert canvas.scale == (expected[1] / size[1], expected[0] / size[0])


def test_the_edge_of_a_rectangle_covers_the_share_of_a_pixel_that_lies_in_it():
    canvas = Canvas(plain(500, 500))
    canvas.fill(canvas.box((100.25, 50.0, 200.0, 90.0), radius=0.0), RED)
    red = canvas.pixels[70, :, 0].astype(int)
    assert (red[99], red[101], red[199], red[200]) == (128, 255, 255, 128)
    assert red[100] == pytest.approx(128 + 0.75 * 127, abs=1)


@pytest.mark.parametrize("size", [(500, 600), (60, 90), (1000, 1200)])
def test_a_mask_covers_its_area_and_its_outline_lies_where_its_pixels_end(size):
    height, width = size
    mask = np.zeros(size, bool)
    mask[height // 4 : height // 2, width // 3 : 2 * width // 3] = True
    canvas = Canvas(plain(*size))
    shape = canvas.mask(mask)
    assert shape is not None
    inside = np.zeros((canvas.height, canvas.width), bool)
    rows, columns = shape.distance.shape
    inside[shape.top : shape.top + rows, shape.left : shape.left + columns] = shape.distance > 0
    assert inside.mean() == pytest.approx(mask.mean(), rel=0.01)
    middle = shape.distance[rows // 2]
    left, right = np.flatnonzero(middle > 0)[[0, -1]] + shape.left
    across = canvas.scale[0]
    assert left == pytest.approx(width // 3 * across, abs=1)
    assert right + 1 == pytest.approx(2 * width // 3 * across, abs=1)
    edge = left - shape.left
    assert middle[edge] - middle[edge - 1] == pytest.approx(1, abs=0.15)  # pixels to the outline


def test_an_empty_mask_has_no_outline_and_one_at_the_border_is_open_there():
    canvas, mask = Canvas(plain(500, 500)), np.zeros((500, 500), bool)
    assert canvas.mask(mask) is None
    mask[:, :100] = True
    shape = canvas.mask(mask)
    assert shape is not None
    assert (shape.top, shape.left, len(shape.distance)) == (0, 0, 500)
    assert (shape.distance[:, 0] > 2).all()


@pytest.mark.parametrize("line", [2, 3])
def test_a_line_of_a_mask_two_pixels_wide_is_seen(line):
    mask = np.zeros((600, 600), bool)
    mask[:, 300 : 300 + line] = True
    shape = Canvas(plain(600, 600)).mask(mask)
    assert shape is not None
    assert (shape.distance > 0).any(1).all()
