import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.errors import UserError
from ddf_jax.training.tasks.classification import Classification, masked_mean, softmax_cross_entropy


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


def test_predictions_are_probabilities_in_float32():
    logits = jnp.array([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]], jnp.bfloat16)
    found = Classification().predict(lambda image: image, {"image": logits})
    assert found.dtype == jnp.float32
    expected = np.exp([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0])
def test_a_smoothing_of_everything_is_refused(label_smoothing: float):
    with pytest.raises(UserError, match=rf"`label_smoothing` must be in \[0, 1\), got {label_smoothing}"):
        Classification(label_smoothing)
