"""The losses of detectors, element by element, as MMDetection computes them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

EPSILON = float(np.finfo(np.float32).eps)
"""Added to each number of elements that a sum of losses is divided by, in any precision."""


def mean_over(losses: Array, count: Array) -> Array:
    """The sum of losses of any shape, divided by a number of elements []."""
    return losses.sum() / (count.astype(losses.dtype) + EPSILON)


def smooth_l1(values: Array, targets: Array, beta: float) -> Array:
    r"""|d|, or below β ``d² / (2 β) + β / 2`` less β / 2, of differences d. With a β of 0 it is |d|."""
    distance = jnp.abs(values - targets)
    if beta == 0:
        return distance
    return jnp.where(distance < beta, 0.5 * distance * distance / beta, distance - 0.5 * beta)


def sigmoid_cross_entropy(logits: Array, targets: Array) -> Array:
    r""":math:`-t \log σ(x) - (1 - t) \log(1 - σ(x))`, of logits x and targets t in [0, 1]."""
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """[..., classes] and integers [...] to [...]."""
    classes = jnp.arange(logits.shape[-1], dtype=labels.dtype).reshape((1,) * labels.ndim + (-1,))
    return -jnp.where(classes == labels[..., None], jax.nn.log_softmax(logits), 0).sum(-1)


def focal(logits: Array, targets: Array, *, gamma: float = 2.0, alpha: float = 0.25) -> Array:
    r"""Cross entropy weighted by :math:`α_t (1 - p_t)^γ`, where p_t is the probability of the target.

    Reference: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    """
    targets = targets.astype(logits.dtype)
    probability = jax.nn.sigmoid(logits)
    wrong = (1 - probability) * targets + probability * (1 - targets)
    weight = (alpha * targets + (1 - alpha) * (1 - targets)) * wrong**gamma
    return sigmoid_cross_entropy(logits, targets) * weight
