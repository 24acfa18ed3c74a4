"""The assignment of boxes to objects, and the choice of those that take part in a loss."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ddf_jax.torch_port.detection.boxes import iou

BACKGROUND, UNUSED = -1, -2


@dataclasses.dataclass(frozen=True)
class Matcher:
    """Assigns the object of the largest IoU; of equal ones the first.

    Args:
        positive: least IoU of an assignment.
        negative: background is below it.
        least: also the best boxes of each object are assigned to it if their IoU is at least this (None: they are
            not); the last object wins.
    """

    positive: float
    negative: float
    least: float | None

    def __call__(self, boxes: Tensor, objects: Tensor) -> Tensor:
        """The number of each box's object [N], `BACKGROUND` or `UNUSED`."""
        if not len(objects) or not len(boxes):
            return torch.full((len(boxes),), BACKGROUND, device=boxes.device)
        overlaps = iou(objects, boxes, least_union=1e-6)
        largest, best = overlaps.max(0)
        assigned = torch.where(largest < self.negative, BACKGROUND, UNUSED)
        assigned = torch.where(largest >= self.positive, best, assigned)
        if self.least is not None:
            for number, row in enumerate(overlaps):
                if row.max() >= self.least:
                    assigned[row == row.max()] = number
        return assigned


class Sample(NamedTuple):
    """The boxes that take part in a loss.

    Args:
        positive: numbers of boxes with an object, ascending [P].
        negative: numbers of boxes of background, ascending [Q].
        truth: the number of each positive's object [P].
    """

    positive: Tensor
    negative: Tensor
    truth: Tensor


def sample(assigned: Tensor, count: int, share: float, order: Callable[[int], Tensor]) -> Sample:
    """At most `count` boxes, of which at most `share` are positive."""
    positive = _choose((assigned >= 0).nonzero()[:, 0], int(count * share), order)
    negative = _choose((assigned == BACKGROUND).nonzero()[:, 0], count - len(positive), order)
    return Sample(positive, negative, assigned[positive])


def _choose(candidates: Tensor, count: int, order: Callable[[int], Tensor]) -> Tensor:
    if len(candidates) <= count:
        return candidates
    return candidates[order(len(candidates))[:count].to(candidates.device)].sort().values
