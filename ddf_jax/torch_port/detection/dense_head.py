"""What heads on every pixel of a pyramid share: anchors, their targets and their losses."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddf_jax.torch_port.detection.anchors import Anchors
from ddf_jax.torch_port.detection.boxes import encode
from ddf_jax.torch_port.detection.losses import mean, smooth_l1
from ddf_jax.torch_port.detection.matching import Matcher, Sample
from ddf_jax.torch_port.detection.settings import Settings, Sizes, Truth

UNIT = (1.0, 1.0, 1.0, 1.0)


class DenseOutputs(NamedTuple):
    """Of each level.

    Args:
        classes: logits [B, A·K, H, W].
        boxes: offsets [B, A·4, H, W].
    """

    classes: list[Tensor]
    boxes: list[Tensor]


class DenseLosses(NamedTuple):
    """Of each level.

    Args:
        classes: loss of the classes [L].
        boxes: loss of the offsets [L].
        samples: the anchors of each image that take part, numbered among those that may.
    """

    classes: Tensor
    boxes: Tensor
    samples: list[Sample]


class Targets(NamedTuple):
    """Of the anchors of an image.

    Args:
        used: whether the class counts [N].
        positive: whether the offsets count [N].
        labels: class, or the number of classes for background [N].
        offsets: [N, 4].
    """

    used: Tensor
    positive: Tensor
    labels: Tensor
    offsets: Tensor


class DenseHead(nn.Module, ABC):
    """Logits of K classes and offsets of each anchor.

    Args:
        anchors: at each pixel.
        num_classes: K.
        matcher: of anchors to objects.
        crossing: whether anchors that cross the border of an image take part in training.
        beta: of the loss of the offsets.
    """

    def __init__(self, anchors: Anchors, num_classes: int, matcher: Matcher, *, crossing: bool = True, beta: float = 0):
        super().__init__()
        self.anchors = anchors
        self.num_classes = num_classes
        self.matcher = matcher
        self.crossing = crossing
        self.beta = beta

    @abstractmethod
    def forward(self, levels: Sequence[Tensor]) -> DenseOutputs: ...

    @abstractmethod
    def choose(self, assigned: Tensor, settings: Settings) -> Sample:
        """The anchors that take part, of those that may."""

    @abstractmethod
    def count(self, samples: Sequence[Sample]) -> int:
        """What the losses are divided by."""

    @abstractmethod
    def class_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of logits [N, K] and labels [N]: [N, K]."""

    def losses(self, outputs: DenseOutputs, sizes: Sizes, truths: Sequence[Truth], settings: Settings) -> DenseLosses:
        levels = self.anchors.levels(outputs.classes)
        anchors, lengths = torch.cat(levels), [len(level) for level in levels]
        samples, targets = [], []
        for size, truth in zip(sizes, truths, strict=True):
            may = torch.cat(self.anchors.covered(outputs.classes, size))
            if not self.crossing:
                limits = anchors.new_tensor([size[1], size[0]])
                may = may & (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] < limits).all(1)
            chosen = self.choose(self.matcher(anchors[may], truth.boxes), settings)
            samples.append(chosen)
            targets.append(self._targets(anchors, may.nonzero()[:, 0], chosen, truth))
        count = self.count(samples)
        of_levels = zip(*(_split(of_image, lengths) for of_image in targets), strict=True)
        losses = [self._level_losses(*of_level, count) for of_level in zip(*outputs, of_levels, strict=True)]
        classes, boxes = (torch.stack(of_kind) for of_kind in zip(*losses, strict=True))
        return DenseLosses(classes, boxes, samples)

    def _targets(self, anchors: Tensor, may: Tensor, chosen: Sample, truth: Truth) -> Targets:
        positive, negative = may[chosen.positive], may[chosen.negative]
        used = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
        is_positive, labels = used.clone(), torch.full_like(used, self.num_classes, dtype=torch.long)
        offsets = torch.zeros_like(anchors)
        used[positive] = used[negative] = is_positive[positive] = True
        labels[positive] = truth.labels[chosen.truth] if self.num_classes > 1 else 0
        offsets[positive] = encode(anchors[positive], truth.boxes[chosen.truth], UNIT)
        return Targets(used, is_positive, labels, offsets)

    def _level_losses(
        self, logits: Tensor, offsets: Tensor, targets: Sequence[Targets], count: int
    ) -> tuple[Tensor, Tensor]:
        used, positive, labels, expected = (torch.stack(parts) for parts in zip(*targets, strict=True))
        classes = self.class_losses(per_anchor(logits, self.num_classes)[used], labels[used])
        boxes = smooth_l1(per_anchor(offsets, 4)[positive], expected[positive], self.beta)
        return mean(classes, count), mean(boxes, count)


def per_anchor(x: Tensor, values: int) -> Tensor:
    """[B, A·values, H, W] to [B, H·W·A, values]."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, values)


def _split(targets: Targets, lengths: list[int]) -> list[Targets]:
    return [Targets(*parts) for parts in zip(*(tensor.split(lengths) for tensor in targets), strict=True)]
