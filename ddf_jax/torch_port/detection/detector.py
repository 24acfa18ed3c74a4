"""Detectors: a backbone, a pyramid and heads."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddf_jax.errors import UserError
from ddf_jax.torch_port.detection.dense_head import DenseLosses, DenseOutputs
from ddf_jax.torch_port.detection.detections import Detections
from ddf_jax.torch_port.detection.fpn import FPN
from ddf_jax.torch_port.detection.htc_roi_head import HTCRoIHead
from ddf_jax.torch_port.detection.matching import Sample
from ddf_jax.torch_port.detection.panoptic import fuse
from ddf_jax.torch_port.detection.retina_head import RetinaHead
from ddf_jax.torch_port.detection.roi_head import RoIHead, RoILosses, RoIOutputs
from ddf_jax.torch_port.detection.rpn import RPNHead
from ddf_jax.torch_port.detection.semantic_head import PanopticFPNHead
from ddf_jax.torch_port.detection.settings import Settings, Sizes, Truth
from ddf_jax.torch_port.resnet import ResNet


class Training(NamedTuple):
    """What a batch gives in training.

    Args:
        losses: by MMDetection's name.
        per_level: losses of each level of the pyramid, by name.
        accuracies: in percent, by name.
        proposals: boxes and scores of each image [N, 5].
        samples: anchors of each image, then its proposals; of a cascade, for the boxes and for the masks of each stage.
    """

    losses: dict[str, Tensor]
    per_level: dict[str, Tensor]
    accuracies: dict[str, Tensor]
    proposals: list[Tensor]
    samples: list[Sample]


class Evaluation(NamedTuple):
    """What a batch gives in detection.

    Args:
        stages: outputs of the backbone.
        levels: of the pyramid.
        dense: outputs of the head on every pixel.
        proposals: boxes and scores of each image [N, 5].
        boxes: logits and offsets of the proposals, of each stage.
        masks: logits of the detections' masks, of each stage.
        semantic: logits; None without a semantic branch.
        detections: of each image.
    """

    stages: list[Tensor]
    levels: list[Tensor]
    dense: DenseOutputs
    proposals: list[Tensor]
    boxes: list[tuple[Tensor, Tensor]]
    masks: list[Tensor]
    semantic: Tensor | None
    detections: list[Detections]


class Detector(nn.Module, ABC):
    """Images [B, 3, H, W], padded with 0 to the largest of the batch, to detections.

    The stem and the first stage of the backbone get no gradient. Every BatchNorm of the backbone has its statistics
    of the evaluation also in training.
    """

    def __init__(self, backbone: ResNet, neck: FPN, settings: Settings):
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.settings = settings
        for name, parameter in backbone.named_parameters():
            if not name.startswith(("layer2.", "layer3.", "layer4.")):
                parameter.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "Detector":
        super().train(mode)
        self.backbone.eval()
        return self

    def loss(
        self, images: Tensor, sizes: Sizes, truths: Sequence[Truth], semantic: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The losses by MMDetection's names; their sum is minimised.

        Args:
            images: [B, 3, H, W].
            sizes: (height, width) of each image without padding.
            truths: objects of each image.
            semantic: class of each pixel [B, H, W], 255 where there is none; only for a semantic branch.
        """
        return self.training_outputs(images, sizes, truths, semantic).losses

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Sizes) -> list[Detections]:
        """The detections of each image."""
        return self.evaluation_outputs(images, sizes).detections

    @abstractmethod
    def training_outputs(
        self, images: Tensor, sizes: Sizes, truths: Sequence[Truth], semantic: Tensor | None = None
    ) -> Training:
        """The losses and what they are computed from."""

    @abstractmethod
    def evaluation_outputs(self, images: Tensor, sizes: Sizes) -> Evaluation:
        """The detections and what they are computed from."""


class RetinaNet(Detector):
    """One head on every pixel of P3 to P7.

    Reference: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    def __init__(self, backbone: ResNet, neck: FPN, settings: Settings, bbox_head: RetinaHead):
        super().__init__(backbone, neck, settings)
        self.bbox_head = bbox_head

    def training_outputs(
        self, images: Tensor, sizes: Sizes, truths: Sequence[Truth], semantic: Tensor | None = None
    ) -> Training:
        del semantic  # it has no semantic branch
        outputs = self.bbox_head(self.neck(self.backbone.features(images)[1:]))
        dense: DenseLosses = self.bbox_head.losses(outputs, sizes, truths, self.settings)
        per_level = {"loss_cls": dense.classes, "loss_bbox": dense.boxes}
        return Training({name: levels.sum() for name, levels in per_level.items()}, per_level, {}, [], [])

    def evaluation_outputs(self, images: Tensor, sizes: Sizes) -> Evaluation:
        stages = self.backbone.features(images)
        levels = self.neck(stages[1:])
        dense = self.bbox_head(levels)
        detections = self.bbox_head.detect(dense, sizes, self.settings)
        return Evaluation(stages, levels, dense, [], [], [], None, detections)


class TwoStageDetector(Detector):
    """Proposals, then heads on each of them: Faster R-CNN, Mask R-CNN, HTC and, with a semantic head, Panoptic FPN."""

    def __init__(
        self,
        backbone: ResNet,
        neck: FPN,
        settings: Settings,
        rpn_head: RPNHead,
        roi_head: RoIHead | HTCRoIHead,
        semantic_head: PanopticFPNHead | None = None,
    ):
        super().__init__(backbone, neck, settings)
        self.rpn_head = rpn_head
        self.roi_head = roi_head
        self.semantic_head = semantic_head

    def training_outputs(
        self, images: Tensor, sizes: Sizes, truths: Sequence[Truth], semantic: Tensor | None = None
    ) -> Training:
        levels = self.neck(self.backbone.features(images))
        outputs = self.rpn_head(levels)
        dense: DenseLosses = self.rpn_head.losses(outputs, sizes, truths, self.settings)
        proposals = self.rpn_head.proposals(
            outputs, sizes, self.settings.train_candidates, self.settings.train_proposals
        )
        heads = self._roi_losses(levels, proposals, sizes, truths, semantic)
        per_level = {"loss_rpn_cls": dense.classes, "loss_rpn_bbox": dense.boxes}
        losses = {name: levels.sum() for name, levels in per_level.items()} | heads.losses
        if self.semantic_head is not None:
            losses["loss_seg"] = self.semantic_head.loss(self.semantic_head(levels), _given(semantic))
        samples = [*dense.samples, *(of_image.chosen for of_image in heads.samples)]
        return Training(losses, per_level, heads.accuracies, proposals, samples)

    def evaluation_outputs(self, images: Tensor, sizes: Sizes) -> Evaluation:
        stages = self.backbone.features(images)
        levels = self.neck(stages)
        dense = self.rpn_head(levels)
        proposals = self.rpn_head.proposals(dense, sizes, self.settings.test_candidates, self.settings.test_proposals)
        heads: RoIOutputs = self.roi_head.detect(levels, proposals, sizes, self.settings)
        detections, semantic = heads.detections, None
        if isinstance(self.roi_head, HTCRoIHead):
            semantic, _ = self.roi_head.semantic_head(levels)
        elif self.semantic_head is not None:
            semantic = self.semantic_head(levels)
            padded = self.semantic_head.segment(semantic, (images.shape[2], images.shape[3]))
            detections = [
                found._replace(panoptic=self._fuse(found, logits, size))
                for found, logits, size in zip(detections, padded, sizes, strict=True)
            ]
        return Evaluation(stages, levels, dense, proposals, heads.boxes, heads.masks, semantic, detections)

    def _roi_losses(
        self,
        levels: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes: Sizes,
        truths: Sequence[Truth],
        semantic: Tensor | None,
    ) -> RoILosses:
        if isinstance(self.roi_head, HTCRoIHead):
            return self.roi_head.cascade_losses(levels, proposals, sizes, truths, _given(semantic), self.settings)
        return self.roi_head.losses(levels, proposals, truths, self.settings)

    def _fuse(self, found: Detections, logits: Tensor, size: tuple[int, int]) -> Tensor:
        assert self.semantic_head is not None
        logits = logits[:, : size[0], : size[1]]
        return fuse(found, logits, self.semantic_head.num_things, self.settings.least_stuff_area)


def _given(semantic: Tensor | None) -> Tensor:
    if semantic is None:
        raise UserError("A detector with a semantic branch needs the class of each pixel, got semantic=None.")
    return semantic
