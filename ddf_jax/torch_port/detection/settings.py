"""How many boxes take part, and what a detector is told about a batch."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Sizes = Sequence[tuple[int, int]]
"""(height, width) of each image of a batch without its padding."""


class Truth(NamedTuple):
    """The objects of an image.

    Args:
        boxes: corners (x1, y1, x2, y2) in pixels [N, 4].
        labels: class of each object [N], from 0.
        masks: pixels of each object [N, H, W], padded as the batch; only detectors with masks need them.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None


def golden_order(count: int) -> Tensor:
    """A fixed order of `count` candidates: by the fractional parts of i·0.618…, the golden ratio's."""
    fractions = torch.arange(count, dtype=torch.float64) * 0.6180339887498949 % 1
    return fractions.argsort(stable=True)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of boxes in training and in detection, those of MMDetection's configurations.

    Args:
        train_candidates: best anchors of each level that become proposals, in training.
        test_candidates: the same in detection.
        train_proposals: proposals of an image that non-maximum suppression leaves, in training.
        test_proposals: the same in detection.
        anchor_samples: anchors of an image in the loss of the proposals.
        box_samples: proposals of an image in the losses of the heads, of each stage.
        least_score: detections have a higher score.
        detections: of an image.
        class_agnostic_nms: whether a detection suppresses those of other classes.
        least_stuff_area: pixels of the smallest stuff region of a panoptic result.
        mask_stages: whether a cascade's mask is the mean of all stages (MMDetection 2) or the last one's (3).
        order: a permutation of 0 … n - 1 for n; the first ones are sampled.
    """

    train_candidates: int = 2000
    test_candidates: int = 1000
    train_proposals: int = 1000
    test_proposals: int = 1000
    anchor_samples: int = 256
    box_samples: int = 512
    least_score: float = 0.05
    detections: int = 100
    class_agnostic_nms: bool = False
    least_stuff_area: int = 4096
    mask_stages: Literal["mean", "last"] = "mean"
    order: Callable[[int], Tensor] = torch.randperm
