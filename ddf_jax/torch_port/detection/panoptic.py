"""The fusion of instances and a semantic segmentation into one panoptic map."""

import torch
from torch import Tensor

from ddf_jax.torch_port.detection.detections import Detections

INSTANCE = 1000
"""The value of a pixel is its class plus this times the number of its instance."""
MAX_OVERLAP = 0.5


def fuse(found: Detections, semantic: Tensor, num_things: int, least_stuff_area: int) -> Tensor:
    """The panoptic map [H, W] of an image: classes of things, then of stuff, then one for pixels without a class.

    Instances by descending score take the pixels that are free, unless more than half of theirs are taken. Other
    pixels have the largest of the semantic logits; regions of stuff of fewer than `least_stuff_area` pixels have none.

    Args:
        found: detections with masks.
        semantic: logits of stuff, and of things as one class [S + 1, H, W].
        num_things: number of classes of things.
        least_stuff_area: in pixels.

    Reference: Kirillov et al., Panoptic Segmentation, CVPR 2019.
    """
    assert found.masks is not None
    panoptic = semantic.argmax(0) + num_things
    taken = torch.zeros_like(panoptic, dtype=torch.bool)
    number = 0
    for mask, label in zip(found.masks, found.labels, strict=True):
        area = int(mask.sum())
        if not area or int((mask & taken).sum()) / (area + 1e-5) > MAX_OVERLAP:
            continue
        number += 1
        panoptic = torch.where(mask & ~taken, label + number * INSTANCE, panoptic)
        taken |= mask
    classes, areas = (panoptic % INSTANCE).unique(return_counts=True)
    small = classes[(classes >= num_things) & (areas < least_stuff_area)]
    num_classes = num_things + len(semantic) - 1
    return torch.where(torch.isin(panoptic, small), num_classes, panoptic)
