"""Captions: legible, within the picture, off one another."""

import itertools
from typing import Any

import numpy as np
import pytest

from ddf_jax.training.drawing.canvas import Canvas
from ddf_jax.training.drawing.captions import Captions
from ddf_jax.training.drawing.palette import BLACK, STUFF, THINGS, WHITE, shade, text_colour

COLOUR = (0, 114, 178)


def written(size: tuple[int, int], *captions: tuple[str, Any]) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """A black picture with captions at boxes, and the plates' rectangles."""
    canvas = Canvas(np.zeros((*size, 3), np.uint8))
    writer, plates = Captions(canvas), []
    for text, box in captions:
        before = canvas.pixels.copy()
        writer.at_box(text, box, COLOUR)
        rows, columns = np.nonzero((canvas.pixels != before).any(-1))
        plates.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return canvas.pixels, plates


@pytest.mark.parametrize("box", [(0, 0, 30, 20), (570, 0, 600, 20), (0, 470, 40, 480), (560, 460, 600, 480)])
def test_a_caption_at_a_border_is_as_large_as_one_in_the_middle(box):
    _, [(x1, y1, x2, y2)] = written((480, 600), ("cupboard 0.50", box))
    _, [(a1, b1, a2, b2)] = written((480, 600), ("cupboard 0.50", (200, 200, 400, 300)))
    assert (x2 - x1, y2 - y1) == (a2 - a1, b2 - b1)


def test_a_caption_is_above_its_box_where_there_is_room():
    _, [(x1, _, _, y2)] = written((480, 600), ("ball", (200, 200, 400, 300)))
    assert (x1, y2) == pytest.approx((200, 200), abs=1)


def test_captions_of_equal_boxes_do_not_cover_one_another():
    _, plates = written((480, 600), *[("cupboard 0.50", (0, 0, 300, 100))] * 5)
    for (a1, b1, a2, b2), (x1, y1, x2, y2) in itertools.combinations(plates, 2):
        assert min(a2, x2) <= max(a1, x1) or min(b2, y2) <= max(b1, y1)


def test_a_text_wider_than_the_picture_is_shortened_and_any_picture_has_room_for_some_of_it():
    long = "a very long name of a class that nobody would give " * 5
    _, [(x1, _, x2, _)] = written((480, 600), (long, (0, 100, 100, 200)))
    assert 560 < x2 - x1 <= 600
    picture, _ = written((5000, 8), ("cupboard", (0, 0, 8, 5000)))
    assert picture.shape == (5000, 8, 3)


def test_text_contrasts_with_its_plate_and_names_have_any_letters():
    picture, _ = written((480, 600), ("Schränke 0.50 — ыΩ", (100, 100, 300, 200)))
    assert (picture == 255).all(-1).sum() > 50
    for colour in (*STUFF, *(shade(base, number) for base in THINGS for number in range(3))):
        assert contrast(text_colour(colour), colour) > 4.5, colour
    assert (text_colour(BLACK), text_colour(WHITE)) == (WHITE, BLACK)


def contrast(one: Any, other: Any) -> float:
    """WCAG 2.2's contrast ratio."""

    def luminance(colour: Any) -> float:
        shares = [value / 255 for value in colour]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lower, higher = sorted([luminance(one), luminance(other)])
    return (higher + 0.05) / (lower + 0.05)
