"""The losses of the tasks, and means over what is real."""

import jax
import jax.numpy as jnp
import optax


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0) -> jax.Array:
    """Cross entropy of each example against its smoothed label.

    `loss[b] = - sum over c of q[b, c] · log softmax(logits[b])[c]`, with `q = (1 - ε) · onehot(labels) + ε / classes`
    and ε = `label_smoothing` (Szegedy et al., "Rethinking the Inception Architecture", 2016). Computed in float32.

    Args:
        logits: [B, classes], any floating dtype.
        labels: [B] integers in `0 … classes - 1`.

    Returns:
        [B] float32.

    >>> softmax_cross_entropy(jnp.zeros((1, 10)), jnp.array([3]))
    Array([2.3025851], dtype=float32)
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), optax.smooth_labels(targets, label_smoothing))


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of `values` [B] where `mask` [B] is true; 0 where it is true nowhere."""
    weights = mask.astype(values.dtype)
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def root_mean_square(values: jax.Array, mask: jax.Array) -> jax.Array:
    """`sqrt(mean of values² where mask)`, both of one shape; 0, with a gradient of 0, where the mask is true nowhere.

    Computed in float32. The square of a tenth of a millimetre is added, or the gradient at 0 would be infinite.
    """
    squares = jnp.square(jnp.where(mask, values.astype(jnp.float32), 0.0))  # not finite, it would reach the gradient
    mean = jnp.sum(squares) / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
    return jnp.sqrt(mean + 1e-8) - 1e-4


def charbonnier(values: jax.Array, mask: jax.Array, *, epsilon: float | jax.Array) -> jax.Array:
    """Mean of `sqrt(values² + epsilon²) - epsilon` where `mask`, both of one shape; 0 where the mask is true nowhere.

    Computed in float32. It grows with the square of values below `epsilon` and as the absolute value beyond it, so no
    few large errors drown the others.
    """
    values = jnp.where(mask, values.astype(jnp.float32), 0.0)  # or what is not finite would reach the gradient
    total = jnp.sum(jnp.sqrt(jnp.square(values) + epsilon**2) - epsilon)
    return total / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
