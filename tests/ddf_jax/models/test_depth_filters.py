"""Filters over depth: their weights, the samples they preserve, and their behaviour at holes and borders."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.functional import joint_bilateral_upsample
from ddf_jax.models.depth_filters import KINDS, DepthFilters, propagate
from pallas_kernels import dynamic_filter


def inputs(scale: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image of two colours, depth [1, 4, 5, 1] that follows the colour, and its valid mask."""
    rng = np.random.default_rng(0)
    right = np.arange(5 * scale) >= 2 * scale
    image = np.where(right[None, :, None], 0.8, 0.2) + rng.normal(0, 0.01, (1, 4 * scale, 5 * scale, 3))
    depth = np.where(np.arange(5) >= 2, 5.0, 1.0)[None, None, :, None] + rng.uniform(0, 0.5, (1, 4, 5, 1))
    valid = np.ones_like(depth)
    valid[0, 1, 3] = 0
    return image.astype(np.float32), depth.astype(np.float32), valid.astype(np.float32)


@nnx.jit
def apply(filters: DepthFilters, features: Any, *arrays: Any) -> jax.Array:
    return filters(KINDS["generated"].logits(features, filters.scale), *arrays)


def run(features: np.ndarray, scale: int) -> np.ndarray:
    return np.asarray(apply(DepthFilters(scale), features, *inputs(scale)))


def no_features(scale: int) -> np.ndarray:
    return np.zeros((1, 4 * scale, 5 * scale, KINDS["generated"].channels), np.float32)


@pytest.mark.parametrize("scale", [2, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (4, 8))])
def test_without_features_depth_stays_with_its_colour_and_samples_in_their_place(scale: int):
    found = run(no_features(scale), scale)
    _, depth, valid = inputs(scale)
    left, right = found[:, :, : 2 * scale], found[:, :, 2 * scale :]
    assert left.min() >= 1
    assert left.max() < 2.2  # a smooth upsampling would reach 3 at the edge
    assert right.min() > 4.3
    assert right.max() <= 5.5
    at = found[:, scale // 2 :: scale, scale // 2 :: scale]
    np.testing.assert_array_equal(at[valid > 0], depth[valid > 0])
    assert at[0, 1, 3, 0] != pytest.approx(float(depth[0, 1, 3, 0]), abs=1e-3)


def test_the_prior_is_joint_bilateral_upsampling_where_colours_are_alike():
    rng = np.random.default_rng(0)
    image = (0.5 + rng.normal(0, 0.003, (1, 12, 16, 3))).astype(np.float32)
    depth = rng.uniform(1, 5, (1, 3, 4, 1)).astype(np.float32)

    @nnx.jit
    def both(filters: DepthFilters, image, depth):
        expected = joint_bilateral_upsample(depth, image, scale=4, radius=1, sigma_space=0.6, sigma_colour=0.045)
        return filters.upsample(0.0, image, depth, jnp.ones_like(depth)), expected

    found, expected = both(DepthFilters(4), image, depth)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_features_overrule_every_colour():
    features = no_features(4)
    features[..., [5, 9 + 4]] = 50  # the sample to the right; a pixel itself
    found = run(features, 4)
    _, depth, valid = inputs(4)
    taken = valid[0, :, 1:, 0] > 0
    np.testing.assert_allclose(found[0, 3::4, 3:16:4, 0][taken], depth[0, :, 1:, 0][taken], rtol=1e-5)
    assert found[0, 7, 11, 0] != pytest.approx(float(depth[0, 1, 3, 0]), abs=1e-3)  # a hole has no weight


def test_propagation_carries_depth_to_neighbours_and_not_over_the_border():
    features = no_features(4)
    features[..., 9 + 3] = 50  # everything from the left, four times
    found = run(features, 4)
    assert found.min() >= 1  # zeros beyond the border would lower it
    np.testing.assert_allclose(found[0, 2, 3:6, 0], found[0, 2, 2, 0], rtol=1e-5)


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_propagation_and_its_gradients_are_those_of_sequential_filtering(count: int):
    rng = np.random.default_rng(0)
    y, values, cotangent = (rng.normal(size=(2, 5, 7, 1)).astype(np.float32) for _ in range(3))
    spatial = rng.uniform(0, 0.3, (2, 5, 7, 1, 9)).astype(np.float32)
    valid_mask = (rng.random((2, 5, 7, 1)) < 0.2).astype(np.float32)

    def one_by_one(y, spatial, values):
        for _ in range(count):
            y = jnp.where(valid_mask > 0, values, dynamic_filter(y, spatial, None))
        return y

    def propagated(y, spatial, values) -> Any:
        return propagate(count, y, spatial, valid_mask, values)

    @jax.jit
    def value_and_gradients(*arguments) -> Any:
        (found, pull), (expected, expected_pull) = (jax.vjp(f, *arguments) for f in (propagated, one_by_one))
        return (found, pull(cotangent)), (expected, expected_pull(cotangent))

    (found, gradients), (expected, expected_gradients) = value_and_gradients(y, spatial, values)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert np.abs(wanted).max() > 0.01
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_pixel_adaptive_filters_are_gaussians_of_the_difference_of_features():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, 8, 12, KINDS["pixel_adaptive"].channels)).astype(np.float32)
    pixel_adaptive = jax.jit(KINDS["pixel_adaptive"].logits, static_argnums=1)
    upsampling, propagation = (np.exp(np.asarray(logits)) for logits in pixel_adaptive(features, 4))
    first, second = np.split(np.asarray(features, np.float64)[0], 2, axis=-1)
    # Pixel (5, 6) is number 1·4 + 2 of block (1, 1); the sample to the upper right, tap 2, was taken at (2, 10).
    np.testing.assert_allclose(
        upsampling[0, 1, 1, 6, 2], np.exp(-0.5 * np.sum((first[5, 6] - first[2, 10]) ** 2)), 1e-4
    )
    np.testing.assert_allclose(
        propagation[0, 5, 6, 0, 3], np.exp(-0.5 * np.sum((second[5, 6] - second[5, 5]) ** 2)), 1e-4
    )


def test_half_precision_depth_is_filtered_in_float32():
    image, depth, valid = inputs(4)
    half = depth.astype(jnp.bfloat16)
    found, exact = (apply(DepthFilters(4), no_features(4), image, d, valid) for d in (half, half.astype(np.float32)))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, exact)


def test_the_widths_and_half_precision_depth_have_gradients():
    image, depth, valid = inputs(4)
    graph, widths = nnx.split(DepthFilters(4))
    cotangent = np.linspace(0, 1, image[..., :1].size, dtype=np.float32).reshape(image[..., :1].shape)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradients(widths, depth):
        filters: Any = nnx.merge(graph, widths)
        logits = KINDS["generated"].logits(jnp.asarray(no_features(4)), 4)
        return (filters(logits, image, depth, valid) * cotangent).sum()

    dwidths, ddepth = gradients(widths, depth.astype(jnp.bfloat16))
    assert np.all(np.abs(jax.tree.leaves(dwidths)[0]) > 0)
    assert ddepth.dtype == jnp.bfloat16
    # Every value is a convex combination of depth.
    assert float(np.asarray(ddepth, np.float32).sum()) == pytest.approx(cotangent.sum(), rel=0.05)


@pytest.mark.parametrize("sizes", [{"scale": 0}, {"scale": 4, "iterations": 0}], ids=str)
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="must be an int ≥ 1, got 0"):
        DepthFilters(**sizes)
