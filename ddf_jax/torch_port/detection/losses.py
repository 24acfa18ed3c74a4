"""The losses of boxes and classes."""

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = torch.finfo(torch.float32).eps
"""MMDetection adds it to every number that a sum is divided by."""


def mean(losses: Tensor, count: float) -> Tensor:
    """The sum over `count`."""
    return losses.sum() / (count + EPSILON)


def smooth_l1(values: Tensor, targets: Tensor, beta: float) -> Tensor:
    """``|x| - β/2``, and ``x² / (2·β)`` where ``|x| < β``; with β = 0 the distance."""
    if beta == 0:
        return (values - targets).abs()
    return functional.smooth_l1_loss(values, targets, reduction="none", beta=beta)


def focal(logits: Tensor, targets: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """``α_t · (1 - p_t)^γ · -log p_t`` of each logit; targets are 0 or 1.

    Reference: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """
    probability = logits.sigmoid()
    wrong = targets * (1 - probability) + (1 - targets) * probability
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weight * wrong**gamma
