"""The heads of Faster and Mask R-CNN on proposals."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ddf_jax.torch_port.detection import box_head, mask_head
from ddf_jax.torch_port.detection.box_head import BoxHead, BoxSample, sample_boxes
from ddf_jax.torch_port.detection.detections import Detections, best_detections
from ddf_jax.torch_port.detection.mask_head import MaskHead, mask_loss, paste_masks
from ddf_jax.torch_port.detection.matching import Matcher
from ddf_jax.torch_port.detection.roi_align import roi_features
from ddf_jax.torch_port.detection.settings import Settings, Sizes, Truth

STRIDES = (4, 8, 16, 32)
"""Of the levels that features are taken from."""


class RoILosses(NamedTuple):
    """Of a batch.

    Args:
        losses: by MMDetection's name.
        accuracies: of the classes, in percent, by name.
        samples: proposals of each image that take part; of a cascade, for the boxes and for the masks of each stage.
    """

    losses: dict[str, Tensor]
    accuracies: dict[str, Tensor]
    samples: list[BoxSample]


class RoIOutputs(NamedTuple):
    """Of a batch; outputs have a row for each box, image after image.

    Args:
        detections: of each image.
        boxes: logits and offsets of the proposals, of each stage.
        masks: logits of the detections' masks, of each stage.
    """

    detections: list[Detections]
    boxes: list[tuple[Tensor, Tensor]]
    masks: list[Tensor]


class RoIHead(nn.Module):
    """Classes, boxes and optionally masks.

    Args:
        channels: of the levels.
        num_classes: of things.
        masks: whether it has a mask head.
        op: the layers of the mask head.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        masks: bool,
        op: Literal["convolution", "involution"] = "convolution",
    ):
        super().__init__()
        self.bbox_head = BoxHead(channels, num_classes)
        self.mask_head = MaskHead(channels, num_classes, op=op) if masks else None
        # Mask R-CNN's configuration also assigns to each object its best proposal.
        self.matcher = Matcher(0.5, 0.5, 0.5 if masks else None)

    def losses(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], truths: Sequence[Truth], settings: Settings
    ) -> RoILosses:
        samples = [
            sample_boxes(boxes[:, :4], truth, self.matcher, settings)
            for boxes, truth in zip(proposals, truths, strict=True)
        ]
        logits, offsets = self.bbox_head(box_features(levels, [of_image.boxes for of_image in samples]))
        of_boxes = self.bbox_head.losses(logits, offsets, samples)
        losses = {"loss_cls": of_boxes.classes, "loss_bbox": of_boxes.boxes}
        if self.mask_head is not None:
            masks = self.mask_head(mask_features(levels, [of_image.positives for of_image in samples]))
            losses["loss_mask"] = mask_loss(masks, samples, truths)
        return RoILosses(losses, {"acc": of_boxes.accuracy}, samples)

    @torch.no_grad()
    def detect(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sizes, settings: Settings
    ) -> RoIOutputs:
        boxes = [of_image[:, :4] for of_image in proposals]
        counts = [len(of_image) for of_image in boxes]
        logits, offsets = self.bbox_head(box_features(levels, boxes))
        detections = [
            best_detections(self.bbox_head.decode(box, offset, size), logit.softmax(1)[:, :-1], settings)
            for box, offset, logit, size in zip(boxes, offsets.split(counts), logits.split(counts), sizes, strict=True)
        ]
        if self.mask_head is None:
            return RoIOutputs(detections, [(logits, offsets)], [])
        masks = self.mask_head(mask_features(levels, [of_image.boxes for of_image in detections]))
        return RoIOutputs(with_masks(detections, masks.sigmoid(), sizes), [(logits, offsets)], [masks])


def box_features(levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
    """[sum of R, C, 7, 7] from P2 to P5."""
    return roi_features(levels[: len(STRIDES)], boxes, STRIDES, box_head.SIZE)


def mask_features(levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
    """[sum of R, C, 14, 14] from P2 to P5."""
    return roi_features(levels[: len(STRIDES)], boxes, STRIDES, mask_head.SIZE)


def with_masks(detections: Sequence[Detections], probabilities: Tensor, sizes: Sizes) -> list[Detections]:
    """The detections of each image with masks, from those of all classes [sum of N, K, 28, 28]."""
    of_images = probabilities.split([len(of_image.boxes) for of_image in detections])
    return [
        found._replace(masks=paste_masks(masks[torch.arange(len(masks)), found.labels], found.boxes, size))
        for found, masks, size in zip(detections, of_images, sizes, strict=True)
    ]
