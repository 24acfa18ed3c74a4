"""The box head: the class and the refined box of each region."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.detection.annotations import Detections
from ddf_jax.detection.boxes import BoxCoder, clip
from ddf_jax.detection.losses import mean_over, smooth_l1, softmax_cross_entropy
from ddf_jax.detection.per_image import per_image
from ddf_jax.detection.regions import Regions
from ddf_jax.detection.suppression import best_after_nms
from ddf_jax.layers import Linear
from pallas_kernels import accumulator_dtype

BINS = 7
"""Bins of RoIAlign along both axes."""


@dataclasses.dataclass(frozen=True)
class DetectionSettings:
    """Which boxes become detections.

    Args:
      score: the least probability of a class, exclusive.
      threshold: of the IoU in NMS.
      by_class: whether NMS treats each class on its own.
      count: of an image, at most.
    """

    score: float = 0.05
    threshold: float = 0.5
    by_class: bool = True
    count: int = 100


class BoxHead(nnx.Module):
    """Two fully connected layers, and one each for the logits of the classes and for the boxes.

    Args:
      channels: of the regions' features.
      num_classes: C. The logit C is that of the background.
      hidden: channels of the two layers.
      coder: of boxes.
      beta: of the smooth L1 loss of boxes; 0 is the L1 loss.
      by_class: whether each class has a box of its own.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        hidden: int = 1024,
        coder: BoxCoder = BoxCoder((0.1, 0.1, 0.2, 0.2)),
        beta: float = 0.0,
        by_class: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: Any,
    ):
        options = {"bias_init": nnx.initializers.zeros, "dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        uniform, normal = nnx.initializers.xavier_uniform(), nnx.initializers.normal
        self.hidden1 = Linear(channels * BINS**2, hidden, kernel_init=uniform, **options)
        self.hidden2 = Linear(hidden, hidden, kernel_init=uniform, **options)
        self.classes = Linear(hidden, num_classes + 1, kernel_init=normal(0.01), **options)
        outputs = 4 * num_classes if by_class else 4
        self.deltas = Linear(hidden, outputs, kernel_init=normal(0.001), **options)
        self.num_classes, self.coder, self.beta, self.by_class = num_classes, coder, beta, by_class

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Regions [B, K, 7, 7, channels] to logits [B, K, C + 1] and encoded boxes [B, K, C or 1, 4]."""
        hidden = jax.nn.relu(self.hidden1(x.reshape(*x.shape[:2], -1)))
        hidden = jax.nn.relu(self.hidden2(hidden))
        logits, deltas = self.classes(hidden), self.deltas(hidden)
        wide = accumulator_dtype(logits)
        return logits.astype(wide), deltas.reshape(*deltas.shape[:2], -1, 4).astype(wide)

    def loss(self, logits: Array, deltas: Array, regions: Regions) -> dict[str, Array]:
        """`loss_cls` and `loss_bbox` of regions, both divided by the number of all regions."""
        live, positive = regions.sample.live, regions.sample.positive
        count = jnp.maximum(live.sum(), 1)
        entropy = softmax_cross_entropy(logits, regions.labels)
        some = jnp.arange(4, dtype=regions.boxes.dtype).reshape(1, 1, 4)  # a box with sides, unlike padding
        boxes, targets = (jnp.where(positive[..., None], corners, some) for corners in (regions.boxes, regions.targets))
        targets = self.coder.encode(boxes, targets)
        distance = smooth_l1(self._of_class(deltas, regions.labels), targets, self.beta)
        return {
            "loss_cls": mean_over(jnp.where(live, entropy, 0), count),
            "loss_bbox": mean_over(jnp.where(positive[..., None], distance, 0), count),
        }

    def refine(self, boxes: Array, logits: Array, deltas: Array, size: Array) -> Array:
        """The boxes [B, K, 4] of each region's likeliest class, inside images of (height, width) [B, 2]."""
        deltas = self._of_class(deltas, logits[..., :-1].argmax(-1))
        return clip(self.coder.decode(boxes, deltas), size)

    def detect(
        self, boxes: Array, live: Array, logits: Array, deltas: Array, size: Array, settings: DetectionSettings
    ) -> Detections:
        """The best boxes of all regions and classes.

        Args:
          boxes: the regions [B, K, 4].
          live: whether a region is one [B, K].
          logits: of the head.
          deltas: of the head.
          size: (height, width) of each image [B, 2].
          settings: of the choice.
        """
        return per_image(functools.partial(_detect, self.coder, settings), boxes, live, logits, deltas, size)

    def _of_class(self, deltas: Array, labels: Array) -> Array:
        """[B, K, C or 1, 4] and [B, K] to [B, K, 4]."""
        if not self.by_class:
            return deltas[..., 0, :]
        labels = jnp.minimum(labels, self.num_classes - 1)
        return jnp.take_along_axis(deltas, labels[..., None, None], axis=2)[..., 0, :]


def _detect(
    coder: BoxCoder,
    settings: DetectionSettings,
    boxes: Array,
    live: Array,
    logits: Array,
    deltas: Array,
    size: Array,
    _: tuple[()],
) -> Detections:
    def of_image(boxes: Array, live: Array, logits: Array, deltas: Array, size: Array) -> Detections:
        scores = jax.nn.softmax(logits)[:, :-1]
        classes = scores.shape[1]
        candidates = (live[:, None] & (scores > settings.score)).reshape(-1)

        def label_of(number: Array) -> Array:
            return number % classes

        def decoded(number: Array) -> Array:
            region, label = number // classes, label_of(number)
            return clip(coder.decode(boxes[region], deltas[region, label if deltas.shape[1] > 1 else 0]), size)

        group = label_of if settings.by_class else None
        scores = scores.reshape(-1)
        kept, found = best_after_nms(decoded, scores, candidates, settings.threshold, settings.count, group)
        return Detections(decoded(kept), scores[kept], label_of(kept), found)

    return jax.vmap(of_image)(boxes, live, logits, deltas, size)
