"""RetinaNet's head with MMDetection's names."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.torch_port.detection.anchors import Anchors
from ddf_jax.torch_port.detection.boxes import decode
from ddf_jax.torch_port.detection.dense_head import UNIT, DenseHead, DenseOutputs, per_anchor
from ddf_jax.torch_port.detection.detections import Detections
from ddf_jax.torch_port.detection.layers import conv_module
from ddf_jax.torch_port.detection.losses import focal
from ddf_jax.torch_port.detection.matching import BACKGROUND, Matcher, Sample
from ddf_jax.torch_port.detection.settings import Settings, Sizes
from ddf_jax.torch_port.detection.suppression import suppress

ANCHORS = Anchors(strides=(8, 16, 32, 64, 128), scales=tuple(4 * 2 ** (octave / 3) for octave in range(3)))


class RetinaHead(DenseHead):
    """The class of each anchor, and where its object is: nine anchors at each pixel of P3 to P7.

    Reference: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    def __init__(self, channels: int, num_classes: int):
        super().__init__(ANCHORS, num_classes, Matcher(0.5, 0.4, 0.0))
        self.cls_convs = nn.ModuleList(conv_module(channels, channels, 3) for _ in range(4))
        self.reg_convs = nn.ModuleList(conv_module(channels, channels, 3) for _ in range(4))
        self.retina_cls = nn.Conv2d(channels, self.anchors.per_pixel * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(channels, self.anchors.per_pixel * 4, 3, padding=1)
        assert self.retina_cls.bias is not None
        nn.init.constant_(self.retina_cls.bias, math.log(0.01 / 0.99))  # a probability of 0.01

    def forward(self, levels: Sequence[Tensor]) -> DenseOutputs:
        outputs = DenseOutputs([], [])
        for x in levels:
            classes = boxes = x
            for cls_conv, reg_conv in zip(self.cls_convs, self.reg_convs, strict=True):
                classes, boxes = cls_conv(classes), reg_conv(boxes)
            outputs.classes.append(self.retina_cls(classes))
            outputs.boxes.append(self.retina_reg(boxes))
        return outputs

    def choose(self, assigned: Tensor, settings: Settings) -> Sample:
        del settings  # all take part
        [positive] = (assigned >= 0).nonzero(as_tuple=True)
        [negative] = (assigned == BACKGROUND).nonzero(as_tuple=True)
        return Sample(positive, negative, assigned[positive])

    def count(self, samples: Sequence[Sample]) -> int:
        return sum(max(len(chosen.positive), 1) for chosen in samples)

    def class_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        targets = functional.one_hot(labels, self.num_classes + 1)[:, :-1]
        return focal(logits, targets.to(logits))

    @torch.no_grad()
    def detect(self, outputs: DenseOutputs, sizes: Sizes, settings: Settings) -> list[Detections]:
        """The detections of each image: of each level the best pairs of an anchor and a class."""
        anchors = self.anchors.levels(outputs.classes)
        detections = []
        for image, size in enumerate(sizes):
            boxes, scores, labels = [], [], []
            for level, (logits, offsets) in enumerate(zip(*outputs, strict=True)):
                of_level = per_anchor(logits[image : image + 1], self.num_classes)[0].sigmoid()
                pairs = (of_level > settings.least_score).nonzero()
                values = of_level[pairs[:, 0], pairs[:, 1]]
                best = values.argsort(descending=True, stable=True)[: settings.test_candidates]
                anchor, label = pairs[best].unbind(1)
                offsets = per_anchor(offsets[image : image + 1], 4)[0]
                boxes.append(decode(anchors[level][anchor], offsets[anchor], UNIT, size))
                scores.append(values[best])
                labels.append(label)
            box, score, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
            live = (box[:, 2:] > box[:, :2]).all(1)
            box, score, label = box[live], score[live], label[live]
            kept = suppress(box, score, label, 0.5)[: settings.detections]
            detections.append(Detections(box[kept], score[kept], label[kept]))
        return detections
