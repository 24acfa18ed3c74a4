"""The detectors by name."""

import fnmatch
from typing import Literal

from ddf_jax.errors import UserError
from ddf_jax.torch_port import networks
from ddf_jax.torch_port.detection.detector import Detector, RetinaNet, TwoStageDetector
from ddf_jax.torch_port.detection.fpn import FPN
from ddf_jax.torch_port.detection.htc_roi_head import HTCRoIHead
from ddf_jax.torch_port.detection.retina_head import RetinaHead
from ddf_jax.torch_port.detection.roi_head import RoIHead
from ddf_jax.torch_port.detection.rpn import RPNHead
from ddf_jax.torch_port.detection.semantic_head import PanopticFPNHead
from ddf_jax.torch_port.detection.settings import Settings
from ddf_jax.torch_port.resnet import ResNet

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

WIDTHS = (256, 512, 1024, 2048)
CHANNELS = 256


def create(
    name: str,
    *,
    num_classes: int = 80,
    num_stuff: int = 53,
    num_semantic: int = 183,
    neck: Op = "convolution",
    head: Op = "convolution",
    settings: Settings | None = None,
) -> Detector:
    """A detector with randomly initialised parameters in float32 and MMDetection's names.

    Args:
        name: one of `list_models()`.
        num_classes: of things.
        num_stuff: classes of stuff, of Panoptic FPN.
        num_semantic: classes of the semantic branch of HTC.
        neck: the 3×3 layers behind the sums of the pyramid.
        head: the 3×3 layers of the proposals and of the masks, except of RetinaNet and HTC.
        settings: instead of the family's in `SETTINGS`.

    Raises:
        UserError: no detector has that name, or it has no such head.
    """
    if name not in list_models():
        raise UserError(f"No detector of the port is named {name!r}; there are {', '.join(list_models())}.")
    family, _, depth = name.rpartition("_")
    if head != "convolution" and family in ("retinanet", "htc"):
        raise UserError(f'`head` must be "convolution" for {name}, got {head!r}.')
    backbone = _backbone(depth)
    settings = settings or SETTINGS[family]
    if family == "retinanet":
        pyramid = FPN(WIDTHS[1:], CHANNELS, extra_convolutions=True, op=neck)
        return RetinaNet(backbone, pyramid, settings, RetinaHead(CHANNELS, num_classes))
    pyramid = FPN(WIDTHS, CHANNELS, extra_convolutions=False, op=neck)
    if family == "htc":
        rpn_head = RPNHead(CHANNELS, crossing=False, beta=1 / 9)
        roi_head = HTCRoIHead(CHANNELS, num_classes, num_semantic)
        return TwoStageDetector(backbone, pyramid, settings, rpn_head, roi_head)
    rpn_head = RPNHead(CHANNELS, op=head)
    roi_head = RoIHead(CHANNELS, num_classes, masks=family != "faster_rcnn", op=head)
    semantic_head = PanopticFPNHead(CHANNELS, num_classes, num_stuff) if family == "panoptic_fpn" else None
    return TwoStageDetector(backbone, pyramid, settings, rpn_head, roi_head, semantic_head)


def list_models(pattern: str = "*") -> list[str]:
    """The names of `create` that a shell-style pattern matches."""
    return fnmatch.filter([f"{family}_{backbone}" for family in SETTINGS for backbone in BACKBONES], pattern)


def _backbone(name: str) -> ResNet:
    """A network without its classifier."""
    network = networks.create(name, num_classes=1)
    del network.fc
    return network
