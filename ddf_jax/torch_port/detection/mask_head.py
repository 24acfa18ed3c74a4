"""The mask of each object, with MMDetection's names."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.errors import UserError
from ddf_jax.torch_port.detection.box_head import BoxSample
from ddf_jax.torch_port.detection.layers import conv_module, involution
from ddf_jax.torch_port.detection.roi_align import roi_align
from ddf_jax.torch_port.detection.settings import Truth

SIZE = 14
"""Pixels along both axes of a box's features; a mask has twice as many."""


class MaskHead(nn.Module):
    """Features [R, C, 14, 14] to the logits of every class's mask [R, K, 28, 28].

    Args:
        channels: C.
        num_classes: K.
        residual: whether it adds the features of the previous stage of a cascade.
        op: what the four layers before the deconvolution are.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        residual: bool = False,
        op: Literal["convolution", "involution"] = "convolution",
    ):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(involution(channels), nn.ReLU()) if op == "involution" else conv_module(channels, channels, 3)
            for _ in range(4)
        )
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.conv_logits = nn.Conv2d(channels, num_classes, 1)
        if residual:
            self.conv_res = conv_module(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))

    def features(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        """What the logits are made of [R, C, 14, 14]; `previous` is that of the previous stage."""
        if previous is not None:
            x = x + self.conv_res(previous)
        for conv in self.convs:
            x = conv(x)
        return x

    def logits(self, features: Tensor) -> Tensor:
        return self.conv_logits(self.upsample(features).relu())


def mask_loss(logits: Tensor, samples: Sequence[BoxSample], truths: Sequence[Truth]) -> Tensor:
    """The binary cross entropy of the masks of the positives' classes, the mean over all pixels."""
    if not len(logits):
        return logits.sum()
    labels = torch.cat([of_image.labels for of_image in samples])
    targets = torch.cat([mask_targets(*of_image) for of_image in zip(samples, truths, strict=True)])
    of_class = logits[torch.arange(len(labels), device=labels.device), labels]
    return functional.binary_cross_entropy_with_logits(of_class, targets.to(logits))


def mask_targets(sample: BoxSample, truth: Truth) -> Tensor:
    """Whether at least half of each pixel of the positives' masks is of the object: [P, 28, 28]."""
    if truth.masks is None:
        raise UserError("A detector with masks needs those of the objects, got a Truth with masks=None.")
    masks = truth.masks[sample.chosen.truth].to(sample.boxes)
    height, width = masks.shape[1:]
    boxes = torch.minimum(sample.positives.clamp(min=0), sample.boxes.new_tensor([width, height, width, height]))
    return roi_align(masks[:, None], boxes, 1, 2 * SIZE)[:, 0] >= 0.5


def paste_masks(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks [N, 28, 28] in their boxes [N, 4], resampled to an image [N, H, W], where they are at least one half."""
    pixels = (torch.arange(length).to(boxes) + 0.5 for length in size)
    y, x = (
        (place - boxes[:, axis, None]) / (boxes[:, axis + 2, None] - boxes[:, axis, None]) * 2 - 1
        for place, axis in zip(pixels, (1, 0), strict=True)
    )
    # A box without width or height has infinite places; MMDetection takes the middle of its mask.
    y, x = (torch.where(place.isinf(), 0, place) for place in (y, x))
    masks = probabilities.new_zeros(len(boxes), *size, dtype=torch.bool)
    for number in range(len(boxes)):
        grid = torch.stack(torch.meshgrid(x[number], y[number], indexing="xy"), 2)
        resampled = functional.grid_sample(probabilities[number, None, None], grid[None], align_corners=False)
        masks[number] = resampled[0, 0] >= 0.5
    return masks
