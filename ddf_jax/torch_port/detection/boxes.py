"""Boxes as corners (x1, y1, x2, y2) in pixels, [N, 4], and as offsets from other boxes."""

import math

import torch
from torch import Tensor

MAX_RATIO = math.log(1000 / 16)
"""Logarithm of the largest ratio of a decoded side to that of its anchor, and of the smallest with a minus."""


def area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def iou(boxes: Tensor, others: Tensor, least_union: float = 0.0) -> Tensor:
    """The intersection over union, [N, 4] and [M, 4] to [N, M]; a smaller union counts as `least_union`."""
    upper_left = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    lower_right = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = (lower_right - upper_left).clamp(min=0).prod(2)
    union = area(boxes)[:, None] + area(others)[None] - intersection
    return intersection / union.clamp(min=least_union)


def encode(anchors: Tensor, boxes: Tensor, deviations: tuple[float, ...]) -> Tensor:
    """(x - x_a) / w_a, (y - y_a) / h_a, log(w / w_a), log(h / h_a) of centres and sides, over `deviations`: [N, 4]."""
    centre, side = _centre_side(boxes)
    anchor_centre, anchor_side = _centre_side(anchors)
    offsets = torch.cat([(centre - anchor_centre) / anchor_side, (side / anchor_side).log()], 1)
    return offsets / offsets.new_tensor(deviations)


def decode(anchors: Tensor, offsets: Tensor, deviations: tuple[float, ...], size: tuple[int, int]) -> Tensor:
    """The inverse of `encode`, with sides limited by `MAX_RATIO` and boxes clipped to an image's (height, width)."""
    offsets = offsets * offsets.new_tensor(deviations)
    anchor_centre, anchor_side = _centre_side(anchors)
    centre = anchor_centre + anchor_side * offsets[:, :2]
    side = anchor_side * offsets[:, 2:].clamp(-MAX_RATIO, MAX_RATIO).exp()
    corners = torch.cat([centre - side * 0.5, centre + side * 0.5], 1)
    height, width = size
    return torch.minimum(corners.clamp(min=0), corners.new_tensor([width, height, width, height]))


def _centre_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]
