"""The choice of the regions of interest that a head is trained on."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ddf_jax.detection.annotations import Truths
from ddf_jax.detection.matching import Matcher
from ddf_jax.detection.per_image import per_image
from ddf_jax.detection.sampling import Sample, Sampler, image_keys


class Regions(NamedTuple):
    """The regions of a batch; of each image the positives, then the negatives, then padding.

    Args:
      boxes: [B, K, 4].
      targets: the box of each one's object [B, K, 4], the region itself where it has none.
      labels: the class of its object [B, K]; the number of classes where it has none.
      truth: the number of its object [B, K].
      annotated: whether the region is an object's own box [B, K].
      sample: by their numbers among the objects and, behind them, the candidates.
    """

    boxes: Array
    targets: Array
    labels: Array
    truth: Array
    annotated: Array
    sample: Sample


def choose_regions(
    matcher: Matcher,
    sampler: Sampler,
    num_classes: int,
    boxes: Array,
    live: Array,
    truths: Truths,
    key: Array | None,
) -> Regions:
    """Chooses among candidates and the objects' own boxes, which are positive.

    Args:
      matcher: of candidates to objects.
      sampler: of the choice.
      num_classes: the label of negatives.
      boxes: the candidates [B, P, 4].
      live: whether a candidate is one [B, P].
      truths: the objects.
      key: of the choice; None for a fixed order.
    """
    keys = image_keys(key, len(boxes))
    choose = functools.partial(_choose, matcher, sampler, num_classes)
    return per_image(choose, boxes, live, truths.boxes, truths.labels, truths.known, keys)


def _choose(
    matcher: Matcher,
    sampler: Sampler,
    num_classes: int,
    boxes: Array,
    live: Array,
    truths: Array,
    labels: Array,
    known: Array,
    keys: Array | None,
    _: tuple[()],
) -> Regions:
    def of_image(boxes: Array, live: Array, truths: Array, labels: Array, known: Array, key: Array | None) -> Regions:
        truths = truths.astype(boxes.dtype)
        match = matcher(boxes, live, truths, known)
        every = jnp.concatenate([truths, boxes])
        positive = jnp.concatenate([known, match.positive])
        negative = jnp.concatenate([jnp.zeros_like(known), match.negative])
        truth = jnp.concatenate([jnp.arange(len(truths), dtype=match.truth.dtype), match.truth])
        _, sample = sampler.choose(positive, negative, key)
        chosen, truth = every[sample.boxes], truth[sample.boxes]
        chosen = jnp.where(sample.live[:, None], chosen, 0)
        return Regions(
            boxes=chosen,
            targets=jnp.where(sample.positive[:, None], truths[truth], chosen),
            labels=jnp.where(sample.positive, labels[truth], num_classes),
            truth=jnp.where(sample.positive, truth, 0),
            annotated=sample.positive & (sample.boxes < len(truths)),
            sample=sample,
        )

    return jax.vmap(of_image)(boxes, live, truths, labels, known, keys)
