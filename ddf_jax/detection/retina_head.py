"""RetinaNet's head: a class and a box for each anchor of each level, without proposals."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.detection.anchors import Anchors
from ddf_jax.detection.annotations import Detections, Truths
from ddf_jax.detection.box_head import DetectionSettings
from ddf_jax.detection.boxes import clip
from ddf_jax.detection.losses import focal, mean_over, smooth_l1
from ddf_jax.detection.matching import Matcher
from ddf_jax.detection.per_image import per_image
from ddf_jax.detection.rpn import CODER, DIVISOR, AnchorTargets, DenseOutputs, anchor_targets
from ddf_jax.detection.suppression import best_after_nms
from ddf_jax.layers import Conv
from pallas_kernels import accumulator_dtype

PRIOR = 0.01
"""The probability of each class at the start of training."""


@dataclasses.dataclass(frozen=True)
class RetinaSettings:
    """MMDetection's settings of RetinaNet.

    Args:
      anchors: of all levels, three sizes within an octave.
      matcher: of anchors to objects.
      before_nms: candidates, anchors with a class, of each level, at most.
      detection: the choice of detections.
    """

    anchors: Anchors = Anchors(strides=(8, 16, 32, 64, 128), scales=(4.0, 4.0 * 2 ** (1 / 3), 4.0 * 2 ** (2 / 3)))
    matcher: Matcher = Matcher(positive=0.5, negative=0.4, least=0.0)
    before_nms: int = 1000
    detection: DetectionSettings = DetectionSettings()


class RetinaHead(nnx.Module):
    """Four 3×3 convolutions each for classes and for boxes, and a last one: shared by all levels.

    Args:
      channels: of the levels.
      num_classes: C.
      conv: factory of the 3×3 convolutions with ReLU, or of their replacement.
      depth: how many there are before the last.
      settings: of anchors, training and detections.

    Reference: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        conv: Callable[..., Any],
        depth: int = 4,
        settings: RetinaSettings,
        **dtypes: Any,
    ):
        count = settings.anchors.per_pixel
        options = {"use_bias": True, "kernel_init": nnx.initializers.normal(0.01), **dtypes}
        bias = nnx.initializers.constant(-math.log((1 - PRIOR) / PRIOR))
        self.class_convs = nnx.List([conv(channels, channels, stride=1, **dtypes) for _ in range(depth)])
        self.box_convs = nnx.List([conv(channels, channels, stride=1, **dtypes) for _ in range(depth)])
        self.classes = Conv(channels, count * num_classes, bias_init=bias, **options)
        self.deltas = Conv(channels, 4 * count, bias_init=nnx.initializers.zeros, **options)
        self.num_classes = num_classes
        self.settings = settings

    def __call__(self, levels: Sequence[Array]) -> DenseOutputs:
        logits, deltas, sizes = [], [], []
        for level in levels:
            of_classes, of_boxes = level, level
            for conv in self.class_convs:
                of_classes = jax.nn.relu(conv(of_classes))
            for conv in self.box_convs:
                of_boxes = jax.nn.relu(conv(of_boxes))
            of_classes, of_boxes = self.classes(of_classes), self.deltas(of_boxes)
            wide = accumulator_dtype(level)
            logits.append(of_classes.reshape(len(level), -1, self.num_classes).astype(wide))
            deltas.append(of_boxes.reshape(len(level), -1, 4).astype(wide))
            sizes.append(level.shape[1:3])
        return DenseOutputs(logits, deltas, sizes)

    def targets(self, outputs: DenseOutputs, size: Array, truths: Truths) -> AnchorTargets:
        """What all anchors should find, in images of (height, width) [B, 2] without padding."""
        anchors = self.settings.anchors
        live = jnp.concatenate(anchors.inside(outputs.sizes, -(-size // DIVISOR) * DIVISOR), axis=1)
        every = jnp.concatenate(anchors.levels(outputs.sizes, outputs.deltas[0].dtype))
        assign = functools.partial(_assign, self.settings.matcher)
        return per_image(assign, live, truths.boxes, truths.known, shared=every)

    def loss(self, outputs: DenseOutputs, targets: AnchorTargets, truths: Truths) -> dict[str, Array]:
        """`loss_cls` and `loss_bbox` of each level [levels], both divided by the number of positives."""
        count = jnp.maximum(targets.positive.sum(1), 1).sum()
        labels = jnp.take_along_axis(truths.labels, targets.truth, axis=1)
        losses, start = {"loss_cls": [], "loss_bbox": []}, 0
        for logits, deltas in zip(outputs.logits, outputs.deltas, strict=True):
            level = slice(start, start := start + logits.shape[1])
            positive = targets.positive[:, level]
            counts = positive | targets.negative[:, level]
            classes = jnp.arange(self.num_classes, dtype=labels.dtype).reshape(1, 1, -1)
            is_class = positive[..., None] & (labels[:, level, None] == classes)
            losses["loss_cls"].append(mean_over(jnp.where(counts[..., None], focal(logits, is_class), 0), count))
            distance = smooth_l1(deltas, targets.deltas[:, level], 0.0)
            losses["loss_bbox"].append(mean_over(jnp.where(positive[..., None], distance, 0), count))
        return {name: jnp.stack(of_levels) for name, of_levels in losses.items()}

    def detect(self, outputs: DenseOutputs, size: Array) -> Detections:
        """The best boxes of all anchors and classes, in images of (height, width) [B, 2] without padding."""
        anchors = self.settings.anchors.levels(outputs.sizes, outputs.deltas[0].dtype)
        detect = functools.partial(_detect, self.settings)
        return per_image(detect, outputs.logits, outputs.deltas, size, shared=anchors)


def _assign(matcher: Matcher, live: Array, boxes: Array, known: Array, anchors: Array) -> AnchorTargets:
    of_image = functools.partial(anchor_targets, matcher, anchors)
    return jax.vmap(of_image)(live, boxes.astype(anchors.dtype), known)


def _detect(
    settings: RetinaSettings, logits: list[Array], deltas: list[Array], size: Array, anchors: list[Array]
) -> Detections:
    chosen = settings.detection

    def of_image(logits: list[Array], deltas: list[Array], size: Array) -> Detections:
        boxes, scores, labels = [], [], []
        for level, values in enumerate(logits):
            best, anchor, label = _best(jax.nn.sigmoid(values), settings.before_nms)
            boxes.append(clip(CODER.decode(anchors[level][anchor], deltas[level][anchor]), size))
            scores.append(best)
            labels.append(label)
        all_boxes, all_scores, all_labels = (jnp.concatenate(parts) for parts in (boxes, scores, labels))
        live = (all_scores > chosen.score) & (all_boxes[:, 2:] > all_boxes[:, :2]).all(1)
        group = all_labels if chosen.by_class else None
        kept, count = best_after_nms(all_boxes, all_scores, live, chosen.threshold, chosen.count, group)
        return Detections(all_boxes[kept], all_scores[kept], all_labels[kept], count)

    return jax.vmap(of_image)(logits, deltas, size)


def _best(scores: Array, count: int) -> tuple[Array, Array, Array]:
    """The best of all scores [anchors, classes], and the anchor and the class of each.

    They are among the classes of the `count` anchors with the best single scores, which are few.
    """
    anchors = jax.lax.top_k(scores.max(1), min(count, len(scores)))[1]
    anchors = jnp.sort(anchors)  # of equal scores the first is better
    classes = scores.shape[1]
    best, index = jax.lax.top_k(scores[anchors].reshape(-1), min(count, len(anchors) * classes))
    return best, anchors[index // classes], (index % classes).astype(jnp.int32)
