"""Panoptic maps, by hand."""

import numpy as np
import pytest

from ddf_jax.detection.panoptic import INSTANCE, FusionSettings, panoptic_map, semantic_map

THINGS, STUFF = 80, 2
VOID = THINGS + STUFF


def fused(masks, labels, semantic, least):
    settings = FusionSettings(stuff_area=least)
    return panoptic_map(masks, labels, semantic, num_things=THINGS, num_stuff=STUFF, settings=settings)


def case():
    """Stuff 0 and 1, and things in the last column; four instances of which the last has no pixel."""
    semantic = np.zeros((8, 10), np.int32)
    semantic[:, 5:9], semantic[:, 9:] = 1, STUFF
    masks = np.zeros((4, 8, 10), bool)
    masks[0, 2:6, 2:6] = True
    masks[1, 4:8, 2:6] = True  # half of it is taken: not more than half, so it keeps the rest
    masks[2, 2:6, 3:7] = True  # three quarters are
    return masks, np.array([7, 3, 1, 2]), semantic


def test_instances_take_free_pixels_by_score_and_small_stuff_is_void():
    masks, labels, semantic = case()
    expected = np.where(semantic == 2, VOID, THINGS + semantic)
    expected[2:6, 2:6] = 7 + INSTANCE
    expected[6:8, 2:6] = 3 + 2 * INSTANCE
    found = fused(masks, labels, semantic, 9)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(fused(masks, labels, semantic, 22), expected)  # of stuff 0 are 40 - 18 pixels left
    np.testing.assert_array_equal(fused(masks, labels, semantic, 23), np.where(expected == THINGS, VOID, expected))


def test_without_instances_all_is_stuff_or_void():
    _, _, semantic = case()
    found = fused(np.zeros((0, 8, 10), bool), np.zeros(0, int), semantic, 1)
    np.testing.assert_array_equal(found, np.where(semantic == 2, VOID, THINGS + semantic))


def resized(x, height, width):
    """Bilinear between the centres of pixels [h, w], the border repeated: one value after the other."""
    result = np.zeros((height, width))
    for place in np.ndindex(height, width):
        corners = []
        for at, old, new in zip(place, x.shape, (height, width), strict=True):
            source = min(max((at + 0.5) * old / new - 0.5, 0), old - 1)
            low = min(int(source), old - 1)
            corners.append((low, min(low + 1, old - 1), source - low))
        (top, down, v), (left, right, h) = corners
        upper, lower = (1 - h) * x[top, left] + h * x[top, right], (1 - h) * x[down, left] + h * x[down, right]
        result[place] = (1 - v) * upper + v * lower
    return result


@pytest.mark.parametrize("original", [(13, 17), (26, 34), (7, 9)])
def test_a_semantic_map_is_resized_without_the_padding(original):
    logits = np.random.default_rng(0).standard_normal((4, 6, 3))
    canvas, size = (16, 24), (13, 17)
    found = semantic_map(logits, canvas, size, original)
    whole = [resized(logits[..., n], *canvas)[: size[0], : size[1]] for n in range(3)]
    expected = np.stack([resized(x, *original) for x in whole]).argmax(0)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int32
    assert len(np.unique(found)) == 3
