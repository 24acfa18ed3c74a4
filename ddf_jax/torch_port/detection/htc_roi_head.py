"""The cascade of Hybrid Task Cascade: three stages of boxes and masks, with the features of a semantic branch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.torch_port.detection import box_head, mask_head
from ddf_jax.torch_port.detection.box_head import BoxHead, BoxSample, sample_boxes
from ddf_jax.torch_port.detection.detections import best_detections
from ddf_jax.torch_port.detection.mask_head import MaskHead, mask_loss
from ddf_jax.torch_port.detection.matching import Matcher
from ddf_jax.torch_port.detection.roi_align import roi_features
from ddf_jax.torch_port.detection.roi_head import RoILosses, RoIOutputs, box_features, mask_features, with_masks
from ddf_jax.torch_port.detection.semantic_head import FusedSemanticHead
from ddf_jax.torch_port.detection.settings import Settings, Sizes, Truth

LEAST_IOU = (0.5, 0.6, 0.7)
"""Of positives of each stage."""
DEVIATIONS = (box_head.DEVIATIONS, (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
WEIGHTS = (1.0, 0.5, 0.25)
"""Of each stage's losses."""


class HTCRoIHead(nn.Module):
    """Each stage refines the boxes of the previous one, and its mask head also has the previous one's features.

    Args:
        channels: of the levels.
        num_classes: of things.
        num_semantic: classes of the semantic branch.

    Reference: Chen et al., Hybrid Task Cascade for Instance Segmentation, CVPR 2019.
    """

    def __init__(self, channels: int, num_classes: int, num_semantic: int):
        super().__init__()
        self.bbox_head = nn.ModuleList(
            BoxHead(channels, num_classes, deviations=deviations, class_agnostic=True, beta=1.0)
            for deviations in DEVIATIONS
        )
        self.mask_head = nn.ModuleList(
            MaskHead(channels, num_classes, residual=stage > 0) for stage in range(len(DEVIATIONS))
        )
        self.semantic_head = FusedSemanticHead(channels, num_semantic)

    def cascade_losses(
        self,
        levels: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes: Sizes,
        truths: Sequence[Truth],
        semantic: Tensor,
        settings: Settings,
    ) -> RoILosses:
        logits, context = self.semantic_head(levels)
        result = RoILosses({"loss_semantic_seg": self.semantic_head.loss(logits, semantic)}, {}, [])
        boxes = [of_image[:, :4] for of_image in proposals]
        for stage, (head, least, weight) in enumerate(zip(self._box_heads, LEAST_IOU, WEIGHTS, strict=True)):
            matcher = Matcher(least, least, least)
            samples = _sample(boxes, truths, matcher, settings)
            classes, offsets = head(self._box_features(levels, context, [of_image.boxes for of_image in samples]))
            of_boxes = head.losses(classes, offsets, samples)
            # The masks and the next stage have the refined boxes.
            boxes = _refine(head, samples, offsets.detach(), sizes)
            refined = _sample(boxes, truths, matcher, settings)
            masks = self._mask_logits(levels, context, [of_image.positives for of_image in refined], stage + 1)[-1]
            result.losses[f"s{stage}.loss_cls"] = weight * of_boxes.classes
            result.losses[f"s{stage}.loss_bbox"] = weight * of_boxes.boxes
            result.losses[f"s{stage}.loss_mask"] = weight * mask_loss(masks, refined, truths)
            result.accuracies[f"s{stage}.acc"] = of_boxes.accuracy
            result.samples.extend([*samples, *refined])
        return result

    @torch.no_grad()
    def detect(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sizes, settings: Settings
    ) -> RoIOutputs:
        """The classes are those of the mean of the three stages' logits, the boxes those of the last."""
        _, context = self.semantic_head(levels)
        boxes = [of_image[:, :4] for of_image in proposals]
        counts = [len(of_image) for of_image in boxes]
        outputs = []
        for head in self._box_heads:
            outputs.append(head(self._box_features(levels, context, boxes)))
            offsets = outputs[-1][1].split(counts)
            boxes = [head.decode(*of_image)[:, 0] for of_image in zip(boxes, offsets, sizes, strict=True)]
        logits = torch.stack([logits for logits, _ in outputs]).mean(0)
        detections = [
            best_detections(box[:, None], logit.softmax(1)[:, :-1], settings)
            for box, logit in zip(boxes, logits.split(counts), strict=True)
        ]
        found = [of_image.boxes for of_image in detections]
        masks = self._mask_logits(levels, context, found, len(self.mask_head))
        stages = torch.stack(masks).sigmoid()
        probabilities = stages.mean(0) if settings.mask_stages == "mean" else stages[-1]
        return RoIOutputs(with_masks(detections, probabilities, sizes), outputs, masks)

    @property
    def _box_heads(self) -> list[BoxHead]:
        return [head for head in self.bbox_head if isinstance(head, BoxHead)]

    def _box_features(self, levels: Sequence[Tensor], context: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(self._context_features(context, boxes), box_head.SIZE)
        return box_features(levels, boxes) + pooled

    def _mask_logits(
        self, levels: Sequence[Tensor], context: Tensor, boxes: Sequence[Tensor], stages: int
    ) -> list[Tensor]:
        x = mask_features(levels, boxes) + self._context_features(context, boxes)
        previous, logits = None, []
        for head in self.mask_head[:stages]:
            assert isinstance(head, MaskHead)
            previous = head.features(x, previous)
            logits.append(head.logits(previous))
        return logits

    def _context_features(self, context: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        return roi_features([context], boxes, [self.semantic_head.stride], mask_head.SIZE)


def _sample(boxes: Sequence[Tensor], truths: Sequence[Truth], matcher: Matcher, settings: Settings) -> list[BoxSample]:
    return [sample_boxes(*of_image, matcher, settings) for of_image in zip(boxes, truths, strict=True)]


def _refine(head: BoxHead, samples: Sequence[BoxSample], offsets: Tensor, sizes: Sizes) -> list[Tensor]:
    """The boxes of each image's samples, without the objects that were added to its proposals."""
    refined = []
    of_images = offsets.split([len(of_image.boxes) for of_image in samples])
    for of_image, offset, size in zip(samples, of_images, sizes, strict=True):
        boxes = head.decode(of_image.boxes, offset, size)[:, 0]
        kept = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
        kept[: len(of_image.added)] = ~of_image.added
        refined.append(boxes[kept])
    return refined
