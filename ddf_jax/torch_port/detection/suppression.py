"""Non-maximum suppression."""

import torch
from torch import Tensor

from ddf_jax.torch_port.detection.boxes import iou


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """The numbers of the boxes that no better one of the same group overlaps with an IoU above `threshold`.

    Args:
        boxes: [N, 4].
        scores: [N]; of equal ones the first is better.
        groups: [N].
        threshold: of the IoU.

    Returns:
        numbers by descending score.
    """
    order = scores.argsort(descending=True, stable=True)
    kept = torch.zeros_like(order, dtype=torch.bool)
    for group in groups.unique():
        members = (groups[order] == group).nonzero()[:, 0]
        overlapping = iou(boxes[order[members]], boxes[order[members]]) > threshold
        suppressed = torch.zeros_like(members, dtype=torch.bool)
        for number in range(len(members)):
            if not suppressed[number]:
                kept[members[number]] = True
                suppressed |= overlapping[number]
    return order[kept]
