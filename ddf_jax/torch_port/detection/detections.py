"""What a detector finds in an image."""

from typing import NamedTuple

import torch
from torch import Tensor

from ddf_jax.torch_port.detection.settings import Settings
from ddf_jax.torch_port.detection.suppression import suppress


class Detections(NamedTuple):
    """By descending score.

    Args:
        boxes: corners (x1, y1, x2, y2) in pixels [N, 4].
        scores: probabilities [N].
        labels: classes [N].
        masks: pixels [N, H, W], bool; None without a mask head.
        panoptic: [H, W] with class + 1000 · number of things, class of stuff, number of classes where there is none;
            None except for a panoptic detector.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    panoptic: Tensor | None = None


def best_detections(boxes: Tensor, scores: Tensor, settings: Settings) -> Detections:
    """Non-maximum suppression of the pairs of a proposal and a class.

    Args:
        boxes: of each proposal, one for each class or one for all [N, K or 1, 4].
        scores: [N, K].
        settings: of the detector.
    """
    proposal, label = (scores > settings.least_score).nonzero(as_tuple=True)
    box = boxes.expand(-1, scores.shape[1], -1)[proposal, label]
    score = scores[proposal, label]
    groups = torch.zeros_like(label) if settings.class_agnostic_nms else label
    kept = suppress(box, score, groups, 0.5)[: settings.detections]
    return Detections(box[kept], score[kept], label[kept])
