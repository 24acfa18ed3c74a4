"""The region proposal network with MMDetection's names."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.torch_port.detection.anchors import Anchors
from ddf_jax.torch_port.detection.boxes import decode
from ddf_jax.torch_port.detection.dense_head import UNIT, DenseHead, DenseOutputs, per_anchor
from ddf_jax.torch_port.detection.layers import involution
from ddf_jax.torch_port.detection.matching import Matcher, Sample, sample
from ddf_jax.torch_port.detection.settings import Settings, Sizes
from ddf_jax.torch_port.detection.suppression import suppress

ANCHORS = Anchors(strides=(4, 8, 16, 32, 64), scales=(8.0,))


class RPNHead(DenseHead):
    """Whether each anchor has an object, and where: three anchors at each pixel of P2 to P6.

    Reference: Ren et al., Faster R-CNN, NeurIPS 2015.
    """

    def __init__(
        self,
        channels: int,
        *,
        op: Literal["convolution", "involution"] = "convolution",
        crossing: bool = True,
        beta: float = 0,
    ):
        super().__init__(ANCHORS, 1, Matcher(0.7, 0.3, 0.3), crossing=crossing, beta=beta)
        self.rpn_conv = involution(channels) if op == "involution" else nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(channels, self.anchors.per_pixel, 1)
        self.rpn_reg = nn.Conv2d(channels, self.anchors.per_pixel * 4, 1)

    def forward(self, levels: Sequence[Tensor]) -> DenseOutputs:
        levels = [self.rpn_conv(x).relu() for x in levels]
        return DenseOutputs([self.rpn_cls(x) for x in levels], [self.rpn_reg(x) for x in levels])

    def choose(self, assigned: Tensor, settings: Settings) -> Sample:
        return sample(assigned, settings.anchor_samples, 0.5, settings.order)

    def count(self, samples: Sequence[Sample]) -> int:
        return sum(max(len(chosen.positive), 1) + max(len(chosen.negative), 1) for chosen in samples)

    def class_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        is_object = (labels == 0).to(logits)[:, None]
        return functional.binary_cross_entropy_with_logits(logits, is_object, reduction="none")

    @torch.no_grad()
    def proposals(self, outputs: DenseOutputs, sizes: Sizes, candidates: int, count: int) -> list[Tensor]:
        """The boxes of each image that most likely have an object, with scores, the best first: [≤ count, 5].

        The best `candidates` of each level take part; each level suppresses its own.
        """
        anchors = self.anchors.levels(outputs.classes)
        proposals = []
        for image, size in enumerate(sizes):
            boxes, scores, groups = [], [], []
            for level, (logits, offsets) in enumerate(zip(*outputs, strict=True)):
                of_level = per_anchor(logits[image : image + 1], 1).sigmoid().flatten()
                best = of_level.argsort(descending=True, stable=True)[:candidates]
                offsets = per_anchor(offsets[image : image + 1], 4)[0]
                boxes.append(decode(anchors[level][best], offsets[best], UNIT, size))
                scores.append(of_level[best])
                groups.append(torch.full_like(best, level))
            box, score, group = torch.cat(boxes), torch.cat(scores), torch.cat(groups)
            live = (box[:, 2:] > box[:, :2]).all(1)
            box, score, group = box[live], score[live], group[live]
            kept = suppress(box, score, group, 0.7)[:count]
            proposals.append(torch.cat([box[kept], score[kept, None]], 1))
        return proposals
