"""The class and the box of each proposal, with MMDetection's names."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.torch_port.detection.boxes import decode, encode
from ddf_jax.torch_port.detection.losses import mean, smooth_l1
from ddf_jax.torch_port.detection.matching import Matcher, Sample, sample
from ddf_jax.torch_port.detection.settings import Settings, Truth

SIZE = 7
"""Bins along both axes of a box's features."""
DEVIATIONS = (0.1, 0.1, 0.2, 0.2)


class BoxSample(NamedTuple):
    """The proposals of an image that take part in the losses, positives first.

    Args:
        chosen: their numbers, after those of the objects, which are proposals too.
        boxes: [N, 4].
        labels: class of each positive's object [P].
        objects: box of each positive's object [P, 4].
        added: whether a positive is an object itself [P].
    """

    chosen: Sample
    boxes: Tensor
    labels: Tensor
    objects: Tensor
    added: Tensor

    @property
    def positives(self) -> Tensor:
        return self.boxes[: len(self.labels)]


class BoxLosses(NamedTuple):
    """Scalars; the accuracy is in percent."""

    classes: Tensor
    boxes: Tensor
    accuracy: Tensor


def sample_boxes(proposals: Tensor, truth: Truth, matcher: Matcher, settings: Settings) -> BoxSample:
    """Assigns objects to the proposals [N, 4] and samples, a quarter positive at most; objects come before them."""
    count = len(truth.boxes)
    itself = torch.arange(count, device=proposals.device)
    assigned = torch.cat([itself, matcher(proposals, truth.boxes)])
    chosen = sample(assigned, settings.box_samples, 0.25, settings.order)
    boxes = torch.cat([truth.boxes, proposals])[torch.cat([chosen.positive, chosen.negative])]
    return BoxSample(chosen, boxes, truth.labels[chosen.truth], truth.boxes[chosen.truth], chosen.positive < count)


class BoxHead(nn.Module):
    """Features [R, C, 7, 7] to logits [R, K + 1], the last of background, and offsets [R, 4·K], or [R, 4] of any class.

    Args:
        channels: C.
        num_classes: K.
        deviations: of the offsets.
        class_agnostic: whether a box has the same offsets for every class.
        beta: of the loss of the offsets.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        deviations: tuple[float, ...] = DEVIATIONS,
        class_agnostic: bool = False,
        beta: float = 0,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.deviations = deviations
        self.class_agnostic = class_agnostic
        self.beta = beta
        self.shared_fcs = nn.ModuleList([nn.Linear(channels * SIZE**2, 1024), nn.Linear(1024, 1024)])
        self.fc_cls = nn.Linear(1024, num_classes + 1)
        self.fc_reg = nn.Linear(1024, 4 if class_agnostic else 4 * num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.flatten(1)
        for fc in self.shared_fcs:
            x = fc(x).relu()
        return self.fc_cls(x), self.fc_reg(x)

    def losses(self, logits: Tensor, offsets: Tensor, samples: Sequence[BoxSample]) -> BoxLosses:
        """Cross entropy, and the distance of the offsets of positives; both over the number of samples."""
        labels, positive = [], []
        for of_image in samples:
            background = of_image.labels.new_full((len(of_image.chosen.negative),), self.num_classes)
            labels.append(torch.cat([of_image.labels, background]))
        label = torch.cat(labels)
        positive = (label < self.num_classes).nonzero()[:, 0]
        targets = torch.cat([encode(s.positives, s.objects, self.deviations) for s in samples])
        offsets = offsets.reshape(len(offsets), -1, 4)
        chosen = offsets[positive, 0 if self.class_agnostic else label[positive]]
        classes = mean(functional.cross_entropy(logits, label, reduction="none"), max(len(label), 1))
        boxes = mean(smooth_l1(chosen, targets, self.beta), len(label))
        return BoxLosses(classes, boxes, 100 * (logits.argmax(1) == label).to(logits).mean())

    def decode(self, proposals: Tensor, offsets: Tensor, size: tuple[int, int]) -> Tensor:
        """The boxes of an image: [R, 4] and [R, 4·K] to [R, K, 4] (K = 1 if they are of any class)."""
        offsets = offsets.reshape(len(offsets), -1, 4)
        anchors = proposals[:, None].expand_as(offsets)
        return decode(anchors.reshape(-1, 4), offsets.reshape(-1, 4), self.deviations, size).reshape(offsets.shape)
