"""Masks: their targets in regions, their loss, and their pixels in the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_jax.detection.mask_head import MaskHead, TransposedConv, mask_loss, mask_targets
from ddf_jax.detection.pasting import paste_masks
from ddf_jax.detection.regions import Regions
from ddf_jax.detection.roi_align import roi_align
from ddf_jax.detection.sampling import Sample
from ddf_jax.layers import Conv
from ddf_jax.models.slots import partial_layer
from tests.ddf_jax.layers import formulas


def pasted(mask, box, height, width):
    """Pixel by pixel: bilinear between the mask's values, 0 beyond them."""
    image = np.zeros((height, width))
    (x1, y1, x2, y2), (rows, columns) = box, mask.shape

    def value(row, column):
        return mask[row, column] if 0 <= row < rows and 0 <= column < columns else 0.0

    for y, x in np.ndindex(height, width):
        row, column = (y + 0.5 - y1) / (y2 - y1) * rows - 0.5, (x + 0.5 - x1) / (x2 - x1) * columns - 0.5
        top, left = int(np.floor(row)), int(np.floor(column))
        v, h = row - top, column - left
        upper = (1 - h) * value(top, left) + h * value(top, left + 1)
        lower = (1 - h) * value(top + 1, left) + h * value(top + 1, left + 1)
        image[y, x] = (1 - v) * upper + v * lower
    return image


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([np.float32, np.float64]))
def test_a_pasted_mask_is_that_of_a_loop_over_the_pixels(seed, dtype):
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 4, 6)).astype(dtype)
    corners = rng.uniform(-8, 20, (3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.3, 25, (3, 2))], 1).astype(dtype)
    found = paste_masks(masks, boxes, 13, 17)
    for mask, box, image in zip(masks, boxes, found, strict=True):
        expected = pasted(mask.astype(np.float64), box.astype(np.float64), 13, 17)
        decided = np.abs(expected - 0.5) > 1e-4
        np.testing.assert_array_equal(image[decided], expected[decided] >= 0.5)
        assert decided.mean() > 0.9


def test_a_pasted_mask_stays_in_its_box_and_in_the_image():
    boxes = np.array([[3.2, 4, 30.7, 20.4], [-9, -9, 99, 99], [50, 40, 60, 70], [7, 7, 7, 12]], np.float32)
    inner, whole, outside, line = paste_masks(np.ones((4, 28, 28), np.float32), boxes, 30, 45)
    y, x = np.mgrid[:30, :45] + 0.5
    np.testing.assert_array_equal(inner, (x > 3.2) & (x < 30.7) & (y > 4) & (y < 20.4))
    assert whole.all()
    assert not outside.any()
    assert np.flatnonzero(line.any(0)).tolist() == [6, 7]  # as in MMDetection, the pixels around
    assert paste_masks(np.ones((0, 28, 28), np.float32), boxes[:0], 30, 45).shape == (0, 30, 45)


def regions_of(boxes, truth, positive, labels=None):
    """Of one image."""
    none = np.zeros(len(boxes), int)
    labels = none if labels is None else labels
    chosen, positive, live = (jnp.asarray(array)[None] for array in (none, np.array(positive), none == 0))
    boxes, labels, truth, annotated = (jnp.asarray(array)[None] for array in (boxes, labels, truth, none > 0))
    return Regions(boxes, boxes, labels, truth, annotated, Sample(chosen, positive, live))


@pytest.mark.parametrize("width", [40, pytest.param(37, marks=pytest.mark.slow), 33])
def test_targets_are_the_aligned_mask_of_the_object_whatever_the_width(width):
    rng = np.random.default_rng(width)
    masks = rng.random((3, 30, width)) > 0.4
    masks[..., -1] = True  # the last column counts, the bits behind it do not
    packed = np.packbits(masks, axis=-1)
    packed[..., -1] |= (1 << (-width % 8)) - 1
    boxes = np.array([[0, 0, width, 30], [3.3, 4.7, 20.2, 28], [-5, 2, 9, 9], [width - 6, 5, width + 8, 25]], float)
    truth = np.array([0, 2, 1, 2])
    with jax.enable_x64(True):
        of_width = jax.jit(lambda packed, regions: mask_targets(packed, width, regions, 4))
        found = of_width(jnp.asarray(packed)[None], regions_of(boxes, truth, [True] * 4))
        pixels = jnp.asarray(masks[truth], jnp.float64)[..., None]
        align = jax.jit(lambda pixels, boxes: roi_align([pixels], boxes, jnp.zeros((4, 1), int), (1,), 28))
        aligned = align(pixels, jnp.asarray(boxes)[:, None])
    np.testing.assert_array_equal(found[0], np.asarray(aligned)[:, 0, ..., 0] >= 0.5)
    assert 0.1 < np.asarray(found).mean() < 0.9


def test_the_loss_of_masks_is_the_mean_entropy_of_the_positives_in_their_class():
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((1, 4, 28, 28, 3)), rng.random((1, 4, 28, 28)) > 0.5
    labels, positive = np.array([2, 0, 1, 3]), np.array([True, True, False, False])
    regions = regions_of(np.zeros((4, 4)), np.zeros(4, int), positive, labels)
    p = 1 / (1 + np.exp(-logits[0, [0, 1], :, :, [2, 0]]))
    expected = -np.where(targets[0, :2], np.log(p), np.log(1 - p)).mean()
    with jax.enable_x64(True):
        loss = jax.jit(mask_loss)
        found = loss(logits, targets, regions)
        none = regions_of(np.zeros((4, 4)), np.zeros(4, int), [False] * 4, labels)
        assert loss(logits, targets, none) == 0
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_transposed_convolution_makes_four_pixels_of_each():
    conv = formulas.drawn(lambda rngs: TransposedConv(3, rngs=rngs))
    x, p = formulas.image(2, 4, 5, 3), formulas.parameters(conv)
    kernel = np.asarray(p["conv"]["kernel"]).reshape(3, 2, 2, 3)
    expected = np.zeros((2, 8, 10, 3))
    for i, j in np.ndindex(2, 2):
        expected[:, i::2, j::2] = x @ kernel[:, i, j] + np.asarray(p["bias"])
    formulas.check(conv, expected, x)


def test_the_features_of_another_mask_head_are_added():
    options = {"conv": partial_layer(Conv, use_bias=True), "depth": 1, "flow": True}
    head = formulas.drawn(lambda rngs: MaskHead(3, 2, **options, rngs=rngs))
    x, given = (np.random.default_rng(seed).standard_normal((1, 4, 4, 3)).astype(np.float32) for seed in (0, 1))
    p = formulas.parameters(head)
    summed = x + np.maximum(formulas.linear(given, p["flow"]), 0)
    expected = np.maximum(formulas.conv(summed, p["convs"][0]), 0)
    np.testing.assert_allclose(head.features(x, given), expected, rtol=1e-4, atol=1e-5)
    assert head(x).shape == (1, 8, 8, 2)
