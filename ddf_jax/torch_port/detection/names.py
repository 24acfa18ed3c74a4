"""The detectors by name."""

import fnmatch
from typing import Any, Literal

from ddf_jax.errors import UserError
from ddf_jax.registered import nearest
from ddf_jax.torch_port import networks
from ddf_jax.torch_port.detection.detector import Detector, RetinaNet, TwoStageDetector
from ddf_jax.torch_port.detection.fpn import FPN
from ddf_jax.torch_port.detection.htc_roi_head import HTCRoIHead
from ddf_jax.torch_port.detection.retina_head import RetinaHead
from ddf_jax.torch_port.detection.roi_head import RoIHead
from ddf_jax.torch_port.detection.rpn import RPNHead
from ddf_jax.torch_port.detection.semantic_head import PanopticFPNHead
from ddf_jax.torch_port.detection.settings import Settings

Op = Literal["convolution", "involution"]

BACKBONES = ("resnet50", "resnet101", "rednet50")
SETTINGS = {
    "retinanet": Settings(),
    "faster_rcnn": Settings(),
    "mask_rcnn": Settings(),
    "htc": Settings(train_proposals=2000, least_score=0.001),
    "panoptic_fpn": Settings(least_score=0.6, class_agnostic_nms=True),
}
"""Of each family."""


def create(
    name: str,
    *,
    num_classes: int = 80,
    num_stuff: int = 53,
    num_semantic: int = 183,
    neck: Op = "convolution",
    head: Op = "convolution",
    channels: int = 256,
    settings: Settings | None = None,
    **options: Any,
) -> Detector:
    """A detector with randomly initialised parameters in float32 and MMDetection's names.

    Args:
        name: one of `list_models()`.
        num_classes: of things.
        num_stuff: classes of stuff, of Panoptic FPN.
        num_semantic: classes of the semantic branch of HTC.
        neck: the 3×3 layers behind the sums of the pyramid.
        head: the 3×3 layers of the proposals and of the masks, except of RetinaNet and HTC.
        channels: of the pyramid.
        settings: instead of the family's in `SETTINGS`.
        options: of the backbone, as for `torch_port.create`.

    Raises:
        UserError: no detector has that name, or it has no such neck or head.
    """
    if name not in list_models():
        raise UserError(f"No detector of the port is named {name!r}.{nearest(name, list_models())}")
    for option, op in (("neck", neck), ("head", head)):
        if op not in ("convolution", "involution"):
            raise UserError(f'`{option}` must be "convolution" or "involution" in the port, got {op!r}.')
    family, _, network = name.rpartition("_")
    if head != "convolution" and family in ("retinanet", "htc"):
        raise UserError(f'`head` must be "convolution" for {name}, got {head!r}.')
    backbone = networks.create(network, num_classes=1, **options)
    widths = [backbone.fc.in_features // 2**stage for stage in (3, 2, 1, 0)]
    del backbone.fc  # a detector has no classifier
    settings = settings or SETTINGS[family]
    if family == "retinanet":
        pyramid = FPN(widths[1:], channels, extra_convolutions=True, op=neck)
        return RetinaNet(backbone, pyramid, settings, RetinaHead(channels, num_classes))
    pyramid = FPN(widths, channels, extra_convolutions=False, op=neck)
    if family == "htc":
        rpn_head = RPNHead(channels, crossing=False, beta=1 / 9)
        roi_head = HTCRoIHead(channels, num_classes, num_semantic)
        return TwoStageDetector(backbone, pyramid, settings, rpn_head, roi_head)
    rpn_head = RPNHead(channels, op=head)
    roi_head = RoIHead(channels, num_classes, masks=family != "faster_rcnn", op=head)
    semantic_head = PanopticFPNHead(channels, num_classes, num_stuff) if family == "panoptic_fpn" else None
    return TwoStageDetector(backbone, pyramid, settings, rpn_head, roi_head, semantic_head)


def list_models(pattern: str = "*") -> list[str]:
    """The names of `create` that a shell-style pattern matches."""
    return fnmatch.filter([f"{family}_{backbone}" for family in SETTINGS for backbone in BACKBONES], pattern)
