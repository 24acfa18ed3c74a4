"""Semantic heads: their parts against formulas, and their loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.detection.semantic import (
    FusedSemanticHead,
    GroupNorm,
    PanopticHead,
    UpsampledConvs,
    pixel_loss,
    resize_corners,
)
from ddf_jax.errors import UserError
from tests.ddf_jax.layers import formulas


def test_groups_of_channels_are_normalised_for_each_sample():
    norm = formulas.drawn(lambda rngs: GroupNorm(6, groups=3, rngs=rngs))
    x, p = formulas.image(2, 4, 5, 6), formulas.parameters(norm)
    groups = x.reshape(2, 20, 3, 2)
    mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    expected = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * p["scale"] + p["bias"]
    formulas.check(norm, expected, x)


def test_groups_must_divide_the_channels_and_statistics_are_wide():
    with pytest.raises(UserError, match="`groups` must divide the channels, got 32 for 48"):
        GroupNorm(48)
    norm = GroupNorm(32, dtype=jnp.bfloat16)
    x = jnp.asarray(300 + np.random.default_rng(0).standard_normal((1, 64, 64, 32)), jnp.bfloat16)
    y = norm(x)
    assert y.dtype == jnp.bfloat16
    assert np.asarray(y, np.float32).std() == pytest.approx(1, abs=0.02)  # in bfloat16 the mean would be off by 1


def resized(x, height, width):
    """[h, w] so that the corners' centres stay."""
    result = np.zeros((height, width))
    for place in np.ndindex(height, width):
        ends = []
        for at, old, new in zip(place, x.shape, (height, width), strict=True):
            source = at * (old - 1) / (new - 1) if new > 1 else 0.0
            low = int(source)
            ends.append((low, min(low + 1, old - 1), source - low))
        (top, down, v), (left, right, h) = ends
        upper, lower = (1 - h) * x[top, left] + h * x[top, right], (1 - h) * x[down, left] + h * x[down, right]
        result[place] = (1 - v) * upper + v * lower
    return result


@pytest.mark.parametrize("size", [(9, 5), (3, 14), (1, 1), (4, 7)])
def test_resizing_keeps_the_corners(size):
    x = np.random.default_rng(0).standard_normal((2, 4, 7, 3))
    with jax.enable_x64(True):
        found = resize_corners(jnp.asarray(x), size)
    expected = np.stack([[resized(image[..., n], *size) for n in range(3)] for image in x]).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert resize_corners(jnp.asarray(x, jnp.bfloat16), size).dtype == jnp.bfloat16


def test_ignored_pixels_count_in_the_mean_of_the_nearest_labels():
    labels = np.full((1, 16, 19), 255, np.uint8)
    labels[0, 0, 0], labels[0, 8, 9], labels[0, 1, 1] = 2, 1, 3  # of 2×2 pixels those at 0 and 8, 0 and 9 are asked
    logits = np.random.default_rng(0).standard_normal((1, 2, 2, 4)).astype(np.float32)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -(logs[0, 0, 0, 2] + logs[0, 1, 1, 1]) / 4
    np.testing.assert_allclose(pixel_loss(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-5)


def features(sizes, channels):
    shapes = [(2, *size, channels) for size in sizes]
    return [np.random.default_rng(n).standard_normal(shape).astype(np.float32) for n, shape in enumerate(shapes)]


def test_panoptic_fpn_adds_all_levels_at_the_size_of_the_finest():
    head = formulas.drawn(lambda rngs: PanopticHead(3, 5, inner=32, rngs=rngs))
    levels = features([(21, 27), (11, 14), (6, 7), (3, 4), (2, 2)], 3)

    def both(head, levels):
        parts = [scale(x)[:, :21, :27] for scale, x in zip(head.scales, levels, strict=False)]
        return head(levels), head.logits(parts[0] + parts[1] + parts[2] + parts[3])

    logits, expected = nnx.jit(both)(head, levels)
    assert logits.shape == (2, 21, 27, 6)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert [(len(scale.convs), scale.halvings) for scale in head.scales] == [(1, 0), (1, 1), (2, 2), (3, 3)]


def test_a_level_is_convolved_normalised_and_doubled():
    module = nnx.eval_shape(lambda: UpsampledConvs(3, 32, 2, rngs=nnx.Rngs(0)))
    assert nnx.eval_shape(lambda module: module(jnp.zeros((1, 5, 6, 3))), module).shape == (1, 20, 24, 32)


def test_the_branch_of_a_cascade_has_the_size_of_the_second_level():
    head = formulas.drawn(lambda rngs: FusedSemanticHead(4, 7, rngs=rngs))
    levels = features([(17, 21), (9, 11), (5, 6), (3, 3), (2, 2)], 4)
    logits, embedding = nnx.jit(lambda head, levels: head(levels))(head, levels)
    assert (logits.shape, embedding.shape) == ((2, 9, 11, 7), (2, 9, 11, 4))
    p, x = formulas.parameters(head), np.zeros((2, 9, 11, 4))
    for n, level in enumerate(levels):
        x += formulas.relu(formulas.linear(np.asarray(resize_corners(jnp.asarray(level), (9, 11))), p["laterals"][n]))
    for n in range(4):
        x = formulas.relu(formulas.conv(x, p["convs"][n]))
    np.testing.assert_allclose(logits, formulas.linear(x, p["logits"]), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(embedding, formulas.relu(formulas.linear(x, p["embedding"])), rtol=1e-3, atol=1e-4)
