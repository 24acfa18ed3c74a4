"""RoIAlign against a loop over its samples, and its gradients."""

import math
from typing import Any

import jax
import numpy as np

from ddf_jax.detection.roi_align import levels_of, roi_align

SIZE, STRIDES = 7, (4, 8)


def sampled(x, row, column):
    """Bilinear, as torchvision's: zero where a sample is more than a pixel outside, else the nearest border."""
    height, width, _ = x.shape
    if not (-1 <= row <= height and -1 <= column <= width):
        return np.zeros(x.shape[2])
    row, column = (min(max(place, 0), length - 1) for place, length in ((row, height), (column, width)))
    top, left = int(row), int(column)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, h = row - top, column - left
    return (1 - v) * ((1 - h) * x[top, left] + h * x[top, right]) + v * ((1 - h) * x[down, left] + h * x[down, right])


def looped(features, boxes, levels):
    results = np.zeros((len(boxes), SIZE, SIZE, features[0].shape[2]))
    for result, box, level in zip(results, boxes, levels, strict=True):
        if level < 0:
            continue
        x0, y0, x1, y1 = box / STRIDES[level] - 0.5
        height, width = (y1 - y0) / SIZE, (x1 - x0) / SIZE
        down, across = math.ceil(height), math.ceil(width)
        for i, j, v, h in np.ndindex(SIZE, SIZE, down, across):
            row, column = y0 + (i + (v + 0.5) / down) * height, x0 + (j + (h + 0.5) / across) * width
            result[i, j] += sampled(features[level], row, column) / (down * across)
    return results


def case():
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((45, 53, 3)), rng.standard_normal((23, 27, 3))]
    boxes = [
        [3.0, 5, 60, 33],
        [-20.0, -9, 230, 190],  # beyond all borders
        [10.0, 10, 10, 40],  # no area
        [0.0, 150, 212, 180],  # longer than a window
        [205.0, 170, 240, 250],
        [1.5, 2.5, 9, 4],
        [50.0, 50, 90, 90],
    ]
    return features, np.array(boxes), np.array([0, 1, 0, 0, 1, 0, -1])


def aligned(features: Any, boxes: Any, levels: Any) -> jax.Array:
    """Of one image."""
    return roi_align([x[None] for x in features], boxes[None], levels[None], STRIDES, SIZE)[0]


def test_values_are_those_of_a_loop_over_the_samples_of_each_image():
    features, boxes, levels = case()
    both = [np.stack([x, -2 * x]) for x in features]
    align = jax.jit(lambda features, boxes, levels: roi_align(features, boxes, levels, STRIDES, SIZE))
    with jax.enable_x64(True):
        found = align(both, np.stack([boxes] * 2), np.stack([levels] * 2))
    expected = looped(features, boxes, levels)
    np.testing.assert_allclose(found, np.stack([expected, -2 * expected]), rtol=0, atol=1e-13)


def test_derivatives_of_first_and_second_order_are_the_transpose_and_the_function():
    features, boxes, levels = case()
    rng = np.random.default_rng(1)
    dy = rng.standard_normal((len(boxes), SIZE, SIZE, 3))
    tangents = [rng.standard_normal(x.shape) for x in features]

    def pull_back(dy):
        return jax.vjp(lambda features: aligned(features, boxes, levels), features)[1](dy)[0]

    with jax.enable_x64(True):
        gradients, second = jax.jit(lambda dy: (pull_back(dy), jax.vjp(pull_back, dy)[1](tangents)[0]))(dy)
    expected = looped(tangents, boxes, levels)
    slope = sum((np.asarray(gradient) * tangent).sum() for gradient, tangent in zip(gradients, tangents, strict=True))
    np.testing.assert_allclose(slope, (dy * expected).sum(), rtol=1e-12)
    np.testing.assert_allclose(second, expected, rtol=0, atol=1e-13)


def test_levels_follow_from_the_sides():
    sides = np.array([1.0, 111, 112, 223, 225, 447, 449, 2000], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], -1)
    assert jax.jit(levels_of, static_argnums=1)(boxes, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
