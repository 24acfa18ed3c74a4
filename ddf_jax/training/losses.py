"""Losses of a classifier against soft targets, and the names of those that a recipe may ask for."""

import jax
import jax.numpy as jnp
import optax

from ddf_jax.registered import Registry


def soft_targets(
    labels: jax.Array,
    classes: int,
    *,
    others: jax.Array | None = None,
    share: jax.Array | float = 1.0,
    smoothing: float = 0.0,
) -> jax.Array:
    """`q = (1 - ε) · (λ · onehot(labels) + (1 - λ) · onehot(others)) + ε / classes`, float32 [B, classes].

    Args:
        labels: [B] integers in `0 … classes - 1`.
        classes: their number.
        others: [B] likewise, those that each example is mixed with; None: with nothing.
        share: λ, of `labels`.
        smoothing: ε (Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016).

    >>> soft_targets(jnp.array([2]), 4, others=jnp.array([0]), share=0.75).tolist()
    [[0.25, 0.0, 0.75, 0.0]]
    """
    targets = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    if others is not None:
        targets = share * targets + (1 - share) * jax.nn.one_hot(others, classes, dtype=jnp.float32)
    return optax.smooth_labels(targets, smoothing)


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """`loss[b] = - sum over c of q[b, c] · log softmax(logits[b])[c]`, computed in float32.

    Args:
        logits: [B, classes], any floating dtype.
        targets: q, [B, classes].

    Returns:
        [B] float32.

    >>> cross_entropy(jnp.zeros((1, 10)), jax.nn.one_hot(jnp.array([3]), 10))
    Array([2.3025851], dtype=float32)
    """
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The mean over classes of the binary cross entropy of each, computed in float32.

    `loss[b] = - mean over c of q · log σ(logits[b, c]) + (1 - q) · log σ(-logits[b, c])`, q = `targets[b, c]`, as in
    Wightman et al., "ResNet strikes back", 2021.

    Args:
        logits: [B, classes], any floating dtype.
        targets: q, [B, classes].

    Returns:
        [B] float32.
    """
    return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets).mean(-1)


def masked_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean of `values` [B] weighted by `weights` [B], or where these are true; 0 where they are 0 everywhere."""
    weights = weights.astype(values.dtype)
    total = jnp.sum(weights)
    return jnp.sum(values * weights) / jnp.where(total == 0, 1, total)


LOSSES = Registry("loss", {"cross_entropy": cross_entropy, "binary_cross_entropy": binary_cross_entropy})
"""Functions `(logits [B, classes], targets [B, classes] float32) -> [B]` by the name that a recipe has for them."""

METRICS = Registry("metric")
"""Functions `(logits [B, classes], labels [B] int32) -> [B]`, whose mean over the examples is a score."""

register_loss = LOSSES.register
register_metric = METRICS.register
