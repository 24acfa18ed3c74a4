"""The second stage of Hybrid Task Cascade: three box and mask heads in turn, with a semantic branch."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.detection import box_head, mask_head
from ddf_jax.detection.annotations import Detections, Proposals, Truths
from ddf_jax.detection.box_head import BoxHead, DetectionSettings
from ddf_jax.detection.boxes import BoxCoder
from ddf_jax.detection.mask_head import MaskHead, mask_loss, of_label
from ddf_jax.detection.matching import Matcher
from ddf_jax.detection.region_heads import is_live, known_masks, of_images, region_features
from ddf_jax.detection.regions import Regions, choose_regions
from ddf_jax.detection.roi_align import roi_align
from ddf_jax.detection.sampling import Sampler
from ddf_jax.detection.semantic import FusedSemanticHead

SEMANTIC_STRIDE = 8


@dataclasses.dataclass(frozen=True)
class CascadeSettings:
    """MMDetection's settings of HTC.

    Args:
      matchers: of boxes to objects, one for each stage.
      coders: of boxes, one for each stage.
      weights: of the losses of each stage.
      sampler: of the regions that count in the losses.
      detection: the choice of detections.
      hidden: channels of the box heads.
      mask_depth: 3×3 convolutions of each mask head.
      masks: "mean" averages the stages' masks (MMDetection 2 and the paper), "last" has the last one's (MMDetection 3).
    """

    matchers: tuple[Matcher, ...] = (Matcher(0.5, 0.5, 0.5), Matcher(0.6, 0.6, 0.6), Matcher(0.7, 0.7, 0.7))
    coders: tuple[BoxCoder, ...] = (
        BoxCoder((0.1, 0.1, 0.2, 0.2)),
        BoxCoder((0.05, 0.05, 0.1, 0.1)),
        BoxCoder((0.033, 0.033, 0.067, 0.067)),
    )
    weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    sampler: Sampler = Sampler(512, 0.25)
    detection: DetectionSettings = DetectionSettings(score=0.001)
    hidden: int = 1024
    mask_depth: int = 4
    masks: Literal["mean", "last"] = "mean"


class Stage(NamedTuple):
    """One stage in training: the regions of its box head, that head's logits, and the regions of its mask head."""

    boxes: Regions
    logits: Array
    masks: Regions


class CascadeHeads(nnx.Module):
    """Each stage refines the boxes of the one before; its mask head also gets the features of the mask head before.

    Args:
      channels: of the levels.
      num_classes: C, of the things.
      num_semantic: classes of the semantic branch.
      conv: factory of the mask heads' 3×3 convolutions.
      settings: of training and detections.

    Reference: Chen et al., "Hybrid Task Cascade for Instance Segmentation", CVPR 2019.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        num_semantic: int,
        conv: Callable[..., Any],
        settings: CascadeSettings,
        **dtypes: Any,
    ):
        box_options = {"hidden": settings.hidden, "beta": 1.0, "by_class": False, **dtypes}
        self.boxes = nnx.List([BoxHead(channels, num_classes, coder=c, **box_options) for c in settings.coders])
        mask_options = {"conv": conv, "depth": settings.mask_depth, **dtypes}
        stages = range(len(settings.coders))
        self.masks = nnx.List([MaskHead(channels, num_classes, flow=n > 0, **mask_options) for n in stages])
        self.semantic = FusedSemanticHead(channels, num_semantic, **dtypes)
        self.num_classes = num_classes
        self.settings = settings

    def loss(
        self, levels: Sequence[Array], size: Array, proposals: Proposals, truths: Truths, key: Array | None
    ) -> dict[str, Array]:
        """`loss_semantic_seg`, and `s0.loss_cls`, `s0.loss_bbox`, `s0.loss_mask` of each stage.

        Args:
          levels: of the pyramid.
          size: (height, width) of each image [B, 2].
          proposals: of the first stage.
          truths: the objects.
          key: of the choice of regions; None for a fixed order.
        """
        return self.loss_and_stages(levels, size, proposals, truths, key)[0]

    def loss_and_stages(
        self, levels: Sequence[Array], size: Array, proposals: Proposals, truths: Truths, key: Array | None
    ) -> tuple[dict[str, Array], list[Stage]]:
        """`loss`, and what it is computed on."""
        logits, semantic = self.semantic(levels)
        losses = {"loss_semantic_seg": self.semantic.loss(logits, truths.given("semantic"))}
        boxes, live = proposals.boxes, proposals.live
        keys = [None] * 6 if key is None else list(jax.random.split(key, 6))
        stages = []
        for stage, (head, weight) in enumerate(zip(self.boxes, self.settings.weights, strict=True)):
            regions = self._choose(stage, boxes, live, truths, keys[2 * stage])
            outputs = head(self._box_features(levels, semantic, regions.boxes, regions.sample.live))
            of_stage = head.loss(*outputs, regions)
            boxes = jax.lax.stop_gradient(head.refine(regions.boxes, *outputs, size))
            live = regions.sample.live & ~regions.annotated
            # The mask head learns on the boxes that this stage's box head has refined.
            refined = self._choose(stage, boxes, live, truths, keys[2 * stage + 1])
            of_stage["loss_mask"] = self._mask_loss(stage, levels, semantic, refined, truths)
            losses |= {f"s{stage}.{name}": weight * loss for name, loss in of_stage.items()}
            stages.append(Stage(regions, outputs[0], refined))
        return losses, stages

    def detect(self, levels: Sequence[Array], size: Array, proposals: Proposals) -> Detections:
        """The objects in images of (height, width) [B, 2]."""
        _, semantic = self.semantic(levels)
        boxes, stages = self.box_stages(levels, semantic, size, proposals)
        mean = sum((logits for logits, _ in stages[1:]), start=stages[0][0]) / len(stages)
        settings, last = self.settings, self.boxes[len(stages) - 1]
        detections = last.detect(boxes, proposals.live, mean, stages[-1][1], size, settings.detection)
        masks = self.mask_logits(levels, semantic, detections.boxes, is_live(detections))
        chosen = masks if settings.masks == "mean" else masks[-1:]
        probabilities = [jax.nn.sigmoid(of_label(logits, detections.labels)) for logits in chosen]
        return detections._replace(masks=sum(probabilities[1:], start=probabilities[0]) / len(probabilities))

    def box_stages(
        self, levels: Sequence[Array], semantic: Array, size: Array, proposals: Proposals
    ) -> tuple[Array, list[tuple[Array, Array]]]:
        """The boxes [B, P, 4] that the last stage refines, and each stage's logits and encoded boxes."""
        boxes, stages = proposals.boxes, []
        for stage, head in enumerate(self.boxes):
            if stage:
                logits, deltas = stages[-1]
                boxes = self.boxes[stage - 1].refine(boxes, logits, deltas, size)
            stages.append(head(self._box_features(levels, semantic, boxes, proposals.live)))
        return boxes, stages

    def mask_logits(self, levels: Sequence[Array], semantic: Array, boxes: Array, live: Array) -> list[Array]:
        """Each stage's logits [B, K, 28, 28, C] of boxes [B, K, 4]."""
        x, given, logits = self._mask_features(levels, semantic, boxes, live), [], []
        for head in self.masks:
            features = of_images(head.features, live, x, *given)
            given = [features]
            logits.append(of_images(head.masks, live, features))
        return logits

    def _choose(self, stage: int, boxes: Array, live: Array, truths: Truths, key: Array | None) -> Regions:
        settings = self.settings
        matcher, sampler = settings.matchers[stage], settings.sampler
        return choose_regions(matcher, sampler, self.num_classes, boxes, live, truths, key)

    def _mask_loss(
        self, stage: int, levels: Sequence[Array], semantic: Array, regions: Regions, truths: Truths
    ) -> Array:
        most = self.settings.sampler.most_positive
        boxes, positive = regions.boxes[:, :most], regions.sample.positive[:, :most]
        x, given = self._mask_features(levels, semantic, boxes, positive), []
        for head in self.masks[:stage]:
            given = [of_images(head.features, positive, x, *given)]
        logits = of_images(self.masks[stage], positive, x, *given)
        return mask_loss(logits, known_masks(truths, levels, regions, most), regions)

    def _box_features(self, levels: Sequence[Array], semantic: Array, boxes: Array, live: Array) -> Array:
        semantic = self._semantic_features(semantic, boxes, live)
        bins = box_head.BINS
        pooled = semantic.reshape(*semantic.shape[:2], bins, 2, bins, 2, -1).mean((3, 5))
        return region_features(levels, boxes, live, bins) + pooled

    def _mask_features(self, levels: Sequence[Array], semantic: Array, boxes: Array, live: Array) -> Array:
        return region_features(levels, boxes, live, mask_head.BINS) + self._semantic_features(semantic, boxes, live)

    def _semantic_features(self, semantic: Array, boxes: Array, live: Array) -> Array:
        number = jnp.where(live, 0, -1)
        return roi_align([semantic], boxes, number, [SEMANTIC_STRIDE], mask_head.BINS)
