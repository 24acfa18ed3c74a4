"""The assignment of ground truths to boxes by their IoU."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ddf_jax.detection.boxes import iou


class Match(NamedTuple):
    """What each box of an image is assigned to.

    Args:
      truth: the number of a ground truth [N], 0 where there is none.
      positive: whether one is assigned [N].
      negative: whether the box is background [N]. Others take no part.
    """

    truth: Array
    positive: Array
    negative: Array


@dataclasses.dataclass(frozen=True)
class Matcher:
    """Assigns the ground truth of the largest IoU, the first of equal ones, as MMDetection's `MaxIoUAssigner`.

    Args:
      positive: the least IoU of a positive.
      negative: background is below it.
      least: the least IoU of a box that is the best for a ground truth, which makes it positive too; None: nothing
        does. Where a box is the best one for several, the last counts.
    """

    positive: float
    negative: float
    least: float | None = None

    def __call__(self, boxes: Array, live: Array, truths: Array, known: Array) -> Match:
        """Assigns the ground truths of an image.

        Args:
          boxes: [N, 4].
          live: whether a box takes part [N].
          truths: [M, 4].
          known: whether a ground truth is one, not padding [M].
        """
        overlaps = jnp.where(known[:, None] & live[None], iou(truths, boxes), -1)
        largest, truth = overlaps.max(0), overlaps.argmax(0)
        positive = largest >= self.positive
        if self.least is not None:
            best = overlaps.max(1, keepdims=True)
            is_best = (overlaps == best) & (best >= self.least)
            numbers = jnp.arange(len(truths), dtype=truth.dtype)[:, None]
            last = jnp.where(is_best, numbers, -1).max(0)
            positive, truth = positive | (last >= 0), jnp.where(last >= 0, last, truth)
        negative = ~positive & (largest < self.negative)
        return Match(jnp.where(positive & live, truth, 0), positive & live, negative & live)
