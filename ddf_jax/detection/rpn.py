"""The region proposal network of Ren et al., 2015: boxes that may hold an object, of any class."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.detection.anchors import Anchors
from ddf_jax.detection.annotations import Proposals, Truths
from ddf_jax.detection.boxes import BoxCoder, clip
from ddf_jax.detection.losses import mean_over, sigmoid_cross_entropy, smooth_l1
from ddf_jax.detection.matching import Matcher
from ddf_jax.detection.per_image import per_image
from ddf_jax.detection.sampling import Sample, Sampler, image_keys
from ddf_jax.detection.suppression import best_after_nms
from ddf_jax.layers import PointwiseConv
from pallas_kernels import accumulator_dtype

CODER = BoxCoder()
DIVISOR = 32
"""Each image's own height and width are rounded up to a multiple of it; anchors further out are not trained."""


@dataclasses.dataclass(frozen=True)
class ProposalSettings:
    """How many proposals there are.

    Args:
      before_nms: of each level, at most.
      count: of an image, at most.
      threshold: of the IoU in NMS.
    """

    before_nms: int = 1000
    count: int = 1000
    threshold: float = 0.7


@dataclasses.dataclass(frozen=True)
class RPNSettings:
    """MMDetection's settings of Faster R-CNN.

    Args:
      anchors: of all levels.
      matcher: of anchors to objects.
      sampler: of the anchors that count in the loss.
      whole: only anchors count that lie inside their image.
      beta: of the smooth L1 loss of boxes; 0 is the L1 loss.
      training: the proposals in training.
      evaluation: the proposals in evaluation.
    """

    anchors: Anchors = Anchors(strides=(4, 8, 16, 32, 64), scales=(8.0,))
    matcher: Matcher = Matcher(positive=0.7, negative=0.3, least=0.3)
    sampler: Sampler = Sampler(256, 0.5)
    whole: bool = False
    beta: float = 0.0
    training: ProposalSettings = ProposalSettings(2000, 1000)
    evaluation: ProposalSettings = ProposalSettings()


class DenseOutputs(NamedTuple):
    """What a head computes at each anchor.

    Args:
      logits: of each level [B, H·W·A] or [B, H·W·A, classes].
      deltas: encoded boxes of each level [B, H·W·A, 4].
      sizes: (H, W) of the levels.
    """

    logits: list[Array]
    deltas: list[Array]
    sizes: list[tuple[int, int]]


class RPNHead(nnx.Module):
    """A 3×3 convolution and two 1×1 ones on each level: an objectness and a box for each anchor.

    Args:
      channels: of the levels.
      conv: factory of the 3×3 convolution or of its replacement.
      settings: of anchors, proposals and training.
    """

    def __init__(self, channels: int, *, conv: Callable[..., Any], settings: RPNSettings, **dtypes: Any):
        count = settings.anchors.per_pixel
        init = {"kernel_init": nnx.initializers.normal(0.01), "bias_init": nnx.initializers.zeros}
        options = {"use_bias": True, **init, **dtypes}
        self.conv = conv(channels, channels, stride=1, **dtypes)
        self.objectness = PointwiseConv(channels, count, **options)
        self.deltas = PointwiseConv(channels, 4 * count, **options)
        self.settings = settings

    def __call__(self, levels: Sequence[Array]) -> DenseOutputs:
        logits, deltas, sizes = [], [], []
        for level in levels:
            x = jax.nn.relu(self.conv(level))
            logits.append(_wide(self.objectness(x)).reshape(len(x), -1))
            deltas.append(_wide(self.deltas(x)).reshape(len(x), -1, 4))
            sizes.append(level.shape[1:3])
        return DenseOutputs(logits, deltas, sizes)

    def propose(self, outputs: DenseOutputs, size: Array, settings: ProposalSettings) -> Proposals:
        """The proposals of each image; no gradient flows through them.

        Args:
          outputs: of the head.
          size: (height, width) of each image, without padding [B, 2].
          settings: `self.settings.training` or `.evaluation`.
        """
        anchors = self.settings.anchors.levels(outputs.sizes, outputs.deltas[0].dtype)
        propose = functools.partial(_propose, settings)
        return per_image(propose, outputs.logits, outputs.deltas, size, shared=anchors)

    def targets(self, outputs: DenseOutputs, size: Array, truths: Truths, key: Array | None) -> "AnchorTargets":
        """What the anchors should find, and which ones count.

        Args:
          outputs: of the head.
          size: (height, width) of each image, without padding [B, 2].
          truths: the objects.
          key: of the choice of anchors; None for a fixed order.
        """
        settings = self.settings
        levels = settings.anchors.levels(outputs.sizes, outputs.deltas[0].dtype)
        anchors = jnp.concatenate(levels)
        padded = -(-size // DIVISOR) * DIVISOR
        live = jnp.concatenate(settings.anchors.inside(outputs.sizes, padded), axis=1)
        keys = image_keys(key, len(size))
        assign = functools.partial(_assign_anchors, settings)
        return per_image(assign, live, size, truths.boxes, truths.known, keys, shared=anchors)

    def loss(self, outputs: DenseOutputs, targets: "AnchorTargets") -> dict[str, Array]:
        """`loss_rpn_cls` and `loss_rpn_bbox` of each level [levels]."""
        # Each image counts at least one anchor of each kind, as in MMDetection.
        positives, negatives = (jnp.maximum(kind.sum(1), 1) for kind in (targets.positive, targets.negative))
        count = (positives + negatives).sum()
        losses, start = {"loss_rpn_cls": [], "loss_rpn_bbox": []}, 0
        for logits, deltas in zip(outputs.logits, outputs.deltas, strict=True):
            level = slice(start, start := start + logits.shape[1])
            positive, negative = targets.positive[:, level], targets.negative[:, level]
            entropy = sigmoid_cross_entropy(logits, positive.astype(logits.dtype))
            losses["loss_rpn_cls"].append(mean_over(jnp.where(positive | negative, entropy, 0), count))
            distance = smooth_l1(deltas, targets.deltas[:, level], self.settings.beta)
            losses["loss_rpn_bbox"].append(mean_over(jnp.where(positive[..., None], distance, 0), count))
        return {name: jnp.stack(of_levels) for name, of_levels in losses.items()}


class AnchorTargets(NamedTuple):
    """What the anchors of a batch should find.

    Args:
      positive: whether an anchor should find an object [B, N].
      negative: whether it should find none [B, N]. Others do not count.
      deltas: the encoded box of its object [B, N, 4], 0 elsewhere.
      truth: the number of its object [B, N].
      live: whether the anchor lies at its image [B, N].
      sample: the chosen anchors; all count where it is None.
    """

    positive: Array
    negative: Array
    deltas: Array
    truth: Array
    live: Array
    sample: Sample | None


def anchor_targets(matcher: Matcher, anchors: Array, live: Array, boxes: Array, known: Array) -> AnchorTargets:
    """Of one image, before any choice: [N, 4], [N], [M, 4] and [M]."""
    match = matcher(anchors, live, boxes, known)
    # Padding encodes itself, so that no logarithm of 0 is taken.
    own = jnp.where(match.positive[:, None], boxes[match.truth], anchors)
    deltas = jnp.where(match.positive[:, None], CODER.encode(anchors, own), 0)
    return AnchorTargets(match.positive, match.negative, deltas, match.truth, live, None)


def _assign_anchors(
    settings: RPNSettings, live: Array, size: Array, boxes: Array, known: Array, keys: Array | None, anchors: Array
) -> AnchorTargets:
    def of_image(live: Array, size: Array, boxes: Array, known: Array, key: Array | None) -> AnchorTargets:
        if settings.whole:
            height, width = size.astype(anchors.dtype)
            live &= (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] < width) & (anchors[:, 3] < height)
        targets = anchor_targets(settings.matcher, anchors, live, boxes.astype(anchors.dtype), known)
        chosen, sample = settings.sampler.choose(targets.positive, targets.negative, key)
        positive, negative = targets.positive & chosen, targets.negative & chosen
        deltas = jnp.where(positive[:, None], targets.deltas, 0)
        return targets._replace(positive=positive, negative=negative, deltas=deltas, live=live, sample=sample)

    return jax.vmap(of_image)(live, size, boxes, known, keys)


def _propose(
    settings: ProposalSettings, logits: list[Array], deltas: list[Array], size: Array, anchors: list[Array]
) -> Proposals:
    def of_image(logits: list[Array], deltas: list[Array], size: Array) -> Proposals:
        boxes, scores, levels = [], [], []
        for level, values in enumerate(logits):
            count = min(settings.before_nms, len(values))
            best, index = jax.lax.top_k(jax.nn.sigmoid(values), count)
            boxes.append(clip(CODER.decode(anchors[level][index], deltas[level][index]), size))
            scores.append(best)
            levels.append(jnp.full(count, level, jnp.int32))
        all_boxes, all_scores, group = (jnp.concatenate(parts) for parts in (boxes, scores, levels))
        has_area = (all_boxes[:, 2:] > all_boxes[:, :2]).all(1)
        kept, count = best_after_nms(all_boxes, all_scores, has_area, settings.threshold, settings.count, group)
        return Proposals(all_boxes[kept], all_scores[kept], count)

    return jax.vmap(of_image)(logits, deltas, size)


def _wide(x: Array) -> Array:
    return x.astype(accumulator_dtype(x))
