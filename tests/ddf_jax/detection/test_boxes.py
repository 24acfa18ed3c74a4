"""Boxes, their coding, assignment, sampling and suppression, each against a loop over single boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_jax.detection.anchors import Anchors
from ddf_jax.detection.boxes import BoxCoder, clip, iou
from ddf_jax.detection.matching import Match, Matcher
from ddf_jax.detection.sampling import GOLDEN, Sampler
from ddf_jax.detection.suppression import nms

match_boxes, sample_boxes = (jax.jit(kind.__call__, static_argnums=0) for kind in (Matcher, Sampler))
keep = jax.jit(nms, static_argnums=2)


def drawn(count, seed=0, size=40, grid=1.0):
    rng = np.random.default_rng(seed)
    corners = np.round(rng.uniform(0, size, (count, 2)) / grid) * grid
    return np.concatenate([corners, corners + np.round(rng.uniform(0, size / 2, (count, 2)) / grid) * grid], -1)


def overlap(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = sides.prod() if (sides > 0).all() else 0.0
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common
    return common / union if union else 0.0


def test_overlaps_are_those_of_each_pair():
    a, b = drawn(7, 1), drawn(5, 2)
    a[0, 2:] = a[0, :2]  # no area
    expected = [[overlap(x, y) for y in b] for x in a]
    np.testing.assert_allclose(iou(jnp.asarray(a), jnp.asarray(b)), expected, rtol=1e-6)


def test_a_decoded_box_is_the_encoded_one_and_no_side_grows_beyond_the_limit():
    with jax.enable_x64(True):
        coder = BoxCoder((0.1, 0.1, 0.2, 0.2))
        anchors, boxes = (drawn(9, seed) + np.array([0, 0, 1, 1]) for seed in (0, 1))
        values = np.array(jax.jit(coder.encode)(anchors, boxes))
        decode = jax.jit(coder.decode)
        np.testing.assert_allclose(decode(anchors, values), boxes, atol=1e-12)
        values[0] = 0, 0, 100, -100
        far, own = (np.asarray(box[2:] - box[:2]) for box in (decode(anchors, values)[0], anchors[0]))
        np.testing.assert_allclose(far / own, [62.5, 1 / 62.5])


def test_boxes_are_clipped_to_the_size_of_their_image():
    boxes = jnp.array([[[-3.0, -4, 30, 40]], [[2.0, 3, 7, 50]]])
    found = clip(boxes, jnp.array([[20, 25], [10, 60]]))
    np.testing.assert_array_equal(found, [[[0, 0, 25, 20]], [[2, 3, 7, 10]]])


def test_anchors_are_ordered_by_row_column_ratio_and_scale():
    anchors = Anchors((8, 16), (4.0, 8.0))
    [first, second] = anchors.levels([(2, 3), (1, 2)], jnp.float32)
    assert first.shape == (2 * 3 * 6, 4)
    expected, root = [], np.sqrt(0.5)
    for ratio_root in (root, 1, 1 / root):
        for scale in (32, 64):
            width, height = scale / ratio_root, scale * ratio_root
            expected.append([8 - width / 2, 8 - height / 2, 8 + width / 2, 8 + height / 2])
    np.testing.assert_allclose(first[4 * 6 : 5 * 6], expected, rtol=1e-6)  # row 1, column 1
    np.testing.assert_allclose(second[6:] - second[:6], np.tile([16, 0, 16, 0], (6, 1)), rtol=1e-6)
    inside = anchors.inside([(2, 3), (1, 2)], jnp.array([[16, 24], [8, 16]]))
    assert [flags.sum(1).tolist() for flags in inside] == [[36, 12], [12, 6]]


def assigned(boxes, live, truths, known, matcher):
    """-1 for nothing, 0 for background, otherwise 1 + the ground truth, for each box."""
    found = np.where(live, 0, -1)
    for n, box in enumerate(boxes):
        values = [overlap(t, box) if k else -1 for t, k in zip(truths, known, strict=True)]
        if not live[n]:
            continue
        best = max(values, default=-1)
        found[n] = 0 if best < matcher.negative else 1 + int(np.argmax(values)) if best >= matcher.positive else -1
    if matcher.least is not None:
        for m, truth in enumerate(truths):
            values = np.array([overlap(truth, box) if ok else -1 for box, ok in zip(boxes, live, strict=True)])
            if known[m] and values.max() >= matcher.least:
                found[values == values.max()] = 1 + m
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0.0, 0.3]))
def test_ground_truths_are_assigned_as_in_a_loop(seed, least):
    rng = np.random.default_rng(seed)
    boxes, truths = drawn(12, seed, 16, 4.0), drawn(4, seed + 1, 16, 4.0)  # on a grid: many ties
    live, known = rng.random(12) < 0.8, rng.random(4) < 0.7
    matcher = Matcher(0.5, 0.4, least)
    with jax.enable_x64(True):
        match = match_boxes(matcher, boxes, live, truths, known)
    found = np.where(match.positive, 1 + np.asarray(match.truth), np.where(match.negative, 0, -1))
    np.testing.assert_array_equal(found, assigned(boxes, live, truths, known, matcher))


def of_kinds(positive, negative):
    return Match(*map(jnp.asarray, (np.zeros(len(positive), int), positive, negative)))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_sample_has_few_positives_and_is_filled_up_by_negatives(ordered):
    positive = np.arange(100) % 3 == 0
    negative = ~positive & (np.arange(100) % 5 > 0)
    sample = sample_boxes(Sampler(32, 0.25), of_kinds(positive, negative), None if ordered else jax.random.key(0))
    assert sample.live.all()
    index = np.asarray(sample.boxes)
    assert positive[index[:8]].all()
    assert negative[index[8:]].all()
    np.testing.assert_array_equal(sample.positive, np.arange(32) < 8)
    assert (np.diff(index[:8]) > 0).all()
    assert (np.diff(index[8:]) > 0).all()
    if ordered:
        order = np.argsort(np.arange(positive.sum()) * GOLDEN % 1, kind="stable")[:8]
        np.testing.assert_array_equal(index[:8], np.flatnonzero(positive)[np.sort(order)])


@pytest.mark.parametrize("wide", [True, False])
def test_the_fixed_order_is_that_of_float64_at_any_precision(wide):
    count, chosen = 300_000, 4096
    with jax.enable_x64(wide):
        sample = sample_boxes(Sampler(chosen, 0.5), of_kinds(np.zeros(count, bool), np.ones(count, bool)), None)
    order = np.argsort(np.arange(count) * GOLDEN % 1, kind="stable")
    np.testing.assert_array_equal(sample.boxes, np.sort(order[:chosen]))


def test_a_sample_of_few_boxes_is_padded():
    sample = sample_boxes(Sampler(8, 0.5), of_kinds(np.arange(5) == 3, np.arange(5) < 2), jax.random.key(1))
    assert sample.boxes.tolist() == [3, 0, 1, 0, 0, 0, 0, 0]
    assert sample.live.tolist() == [True] * 3 + [False] * 5
    assert sample.positive.tolist() == [True] + [False] * 7


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_suppression_keeps_what_a_loop_keeps(seed, grouped):
    rng = np.random.default_rng(seed)
    boxes, live, group = drawn(24, seed, 16, 2.0), rng.random(24) < 0.9, rng.integers(0, 2, 24)
    kept = []
    for n in range(24):
        rivals = [m for m in kept if not grouped or group[m] == group[n]]
        if live[n] and all(overlap(boxes[m], boxes[n]) <= 0.5 for m in rivals):
            kept.append(n)
    with jax.enable_x64(True):
        found = keep(boxes, live, 0.5, group if grouped else None)
    assert np.flatnonzero(found).tolist() == kept
