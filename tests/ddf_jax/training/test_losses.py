import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.training.losses import charbonnier, masked_mean, softmax_cross_entropy


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_is_the_smoothed_cross_entropy_in_float64(label_smoothing: float):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 7)) * 20, rng.integers(0, 7, 6)
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    targets = np.eye(7)[labels] * (1 - label_smoothing) + label_smoothing / 7
    loss = softmax_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), label_smoothing=label_smoothing)
    np.testing.assert_allclose(loss, -(targets * log_p).sum(1), rtol=1e-5, atol=1e-6)


def test_half_precision_logits_are_summed_in_float32():
    logits = jax.random.normal(jax.random.key(0), (4, 1000)).astype(jnp.bfloat16)
    labels = jnp.arange(4)
    loss = softmax_cross_entropy(logits, labels)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, softmax_cross_entropy(logits.astype(jnp.float32), labels), rtol=1e-6)


def test_the_mean_is_over_real_examples_only():
    values = jnp.array([1.0, 2.0, 1000.0])
    assert float(masked_mean(values, jnp.array([True, True, False]))) == 1.5
    assert float(masked_mean(values, jnp.zeros(3, bool))) == 0.0


def test_charbonnier_is_its_formula_and_smooth_at_0():
    values, mask = jnp.array([0.0, -0.03, 2.0, jnp.inf]), jnp.array([True, True, True, False])
    loss, gradient = jax.value_and_grad(charbonnier)(values, mask, epsilon=0.01)
    expected = np.sqrt(np.array([0, 0.03, 2.0]) ** 2 + 0.01**2) - 0.01
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient, [*(np.array([0, -0.03, 2.0]) / (expected + 0.01) / 3), 0], rtol=1e-5)
    assert float(charbonnier(values, jnp.zeros(4, bool), epsilon=0.01)) == 0.0
