"""The choice of the boxes of an image that count in a loss."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ddf_jax.detection.matching import Match

GOLDEN = 0.6180339887498949


class Sample(NamedTuple):
    """The chosen boxes of an image: positives, then negatives, each by their number; then padding.

    Args:
      boxes: their numbers [K], 0 for padding.
      positive: [K].
      live: whether it is no padding [K].
    """

    boxes: Array
    positive: Array
    live: Array


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Chooses at random, as MMDetection's `RandomSampler`; more negatives fill up where positives are few.

    Args:
      count: K.
      positive_share: of positives, at most.
    """

    count: int
    positive_share: float

    def __call__(self, match: Match, key: Array | None) -> Sample:
        """Chooses among the boxes of an image.

        Args:
          match: of the boxes.
          key: of the random choice; None for a fixed order, to compare with other implementations.
        """
        return self.choose(match.positive, match.negative, key)[1]

    def choose(self, positive: Array, negative: Array, key: Array | None) -> tuple[Array, Sample]:
        """The same by the two kinds of boxes [N]; also which boxes are chosen [N]."""
        keys = (None, None) if key is None else jax.random.split(key)
        positive = _choose(positive, self.most_positive, self.most_positive, keys[0])
        negative = _choose(negative, self.count - positive.sum(), self.count, keys[1])
        boxes = jnp.arange(len(positive))
        order = jnp.where(positive, boxes, jnp.where(negative, len(positive) + boxes, 2 * len(positive)))
        count = min(self.count, len(positive))
        index = jax.lax.top_k(-order, count)[1]
        index = jnp.pad(index, (0, self.count - count))
        live = jnp.arange(self.count) < (positive | negative).sum()
        return positive | negative, Sample(jnp.where(live, index, 0), positive[index] & live, live)

    @property
    def most_positive(self) -> int:
        """The largest number of positives."""
        return int(self.count * self.positive_share)


def image_keys(key: Array | None, count: int) -> Array | None:
    """A random key for each of `count` images, the same on any number of devices; None for None."""
    return None if key is None else jax.random.key_data(jax.random.split(key, count))


def _choose(candidates: Array, count: Array | int, most: int, key: Array | None) -> Array:
    """`count` ≤ `most` of the candidates [N], or all: [N]."""
    if key is None:
        order = _golden_order(jnp.cumsum(candidates) - 1)
        priority = jnp.where(candidates, -order, jnp.iinfo(jnp.int32).min)
    else:
        priority = -jnp.where(candidates, jax.random.uniform(key, candidates.shape), 2.0)
    most = min(most, len(candidates))
    chosen = jax.lax.top_k(priority, most)[1]
    return jnp.zeros_like(candidates).at[chosen].set(jnp.arange(most) < count) & candidates


def _golden_order(number: Array) -> Array:
    """The fractional part of n·0.618…, in units of 2⁻³¹, of each number n < 10⁶.

    In integers, as float32 has too few digits: at any precision numbers come in the order that float64 gives.
    """
    whole, rest = divmod(GOLDEN * 2**32, 1)
    number = number.astype(jnp.uint32)
    share = number * jnp.uint32(int(whole)) + (number.astype(jnp.float32) * jnp.float32(rest)).astype(jnp.uint32)
    return (share >> jnp.uint32(1)).astype(jnp.int32)
