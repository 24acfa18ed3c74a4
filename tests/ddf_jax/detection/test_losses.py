"""Losses against their formulas, and what they are divided by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.detection.losses import (
    EPSILON,
    focal,
    mean_over,
    sigmoid_cross_entropy,
    smooth_l1,
    softmax_cross_entropy,
)

RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.standard_normal((5, 4))
P = 1 / (1 + np.exp(-LOGITS))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_sigmoid_cross_entropy_is_its_formula_also_of_soft_targets_and_large_logits():
    targets = RNG.random((5, 4))
    expected = -targets * np.log(P) - (1 - targets) * np.log(1 - P)
    np.testing.assert_allclose(sigmoid_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(targets)), expected, rtol=1e-12)
    far = sigmoid_cross_entropy(jnp.array([800.0, -800.0]), jnp.array([0.0, 0.0]))
    np.testing.assert_array_equal(far, [800, 0])


def test_softmax_cross_entropy_is_minus_the_logarithm_of_the_labels_share():
    labels = np.array([[0, 3, 1], [2, 2, 0]])
    logits = RNG.standard_normal((2, 3, 4))
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(share, labels[..., None], -1)[..., 0])
    np.testing.assert_allclose(softmax_cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-12)
    np.testing.assert_array_equal(softmax_cross_entropy(jnp.asarray(logits), jnp.full((2, 3), 255)), 0)


def test_focal_loss_is_its_formula():
    targets = np.eye(5, 4)
    right, alpha = np.where(targets, P, 1 - P), np.where(targets, 0.25, 0.75)
    found = focal(jnp.asarray(LOGITS), jnp.asarray(targets))
    np.testing.assert_allclose(found, -alpha * (1 - right) ** 2 * np.log(right), rtol=1e-12)


def test_smooth_l1_is_quadratic_below_beta_and_continuous():
    values, zero = jnp.array([-2.0, 0.1, 0.5]), jnp.zeros(3)
    np.testing.assert_allclose(smooth_l1(values, zero, 0.5), [1.75, 0.01, 0.25])
    np.testing.assert_array_equal(smooth_l1(values, zero, 0), [2, 0.1, 0.5])
    slope = jax.vmap(jax.grad(lambda x: smooth_l1(x, jnp.zeros(()), 0.5)))(values)
    np.testing.assert_allclose(slope, [-1, 0.2, 1])


def test_a_mean_has_the_epsilon_of_mmdetection():
    assert mean_over(jnp.array([2.0, 3.0]), jnp.array(2)) == 5 / (2 + EPSILON)
    assert pytest.approx(1.19e-7, rel=1e-2) == EPSILON
