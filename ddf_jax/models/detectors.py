"""Detectors by name: `{retinanet,faster_rcnn,mask_rcnn,htc,panoptic_fpn}_{backbone}`, as MMDetection's.

The 3×3 convolutions of the neck and of the heads, the upsampler of the neck and the backbone's stem are options:
`create("mask_rcnn_rednet50", neck="involution", head="involution", stem_kernel_size=7, rngs=rngs)`.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ddf_jax.detection.box_head import DetectionSettings
from ddf_jax.detection.cascade import CascadeSettings
from ddf_jax.detection.matching import Matcher
from ddf_jax.detection.panoptic import FusionSettings
from ddf_jax.detection.region_heads import RegionSettings
from ddf_jax.detection.retina_head import RetinaSettings
from ddf_jax.detection.rpn import ProposalSettings, RPNSettings
from ddf_jax.errors import UserError
from ddf_jax.layers import (
    CARAFE,
    DCDC,
    Bilinear,
    Bivolution,
    Conv,
    DDFUp,
    Deconvolution,
    Involution,
    Nearest,
    PixelShuffle,
)
from ddf_jax.layers.initializers import normal_fan_out
from ddf_jax.layers.options import python_fields
from ddf_jax.models.binet import DC
from ddf_jax.models.detection_networks import HTC, RCNN, Detector, PanopticFPN, RetinaNet
from ddf_jax.models.fpn import CONVOLUTION
from ddf_jax.models.registry import register
from ddf_jax.models.slots import ChannelwiseOp, SpatialOp, Upsampler, partial_layer

_INVOLUTION = partial_layer(Involution, kernel_size=7, group_channels=16)
_BIVOLUTION = partial_layer(Bivolution, dynamic=_INVOLUTION, static_groups=16, **DC._asdict())
_OPERATORS: dict[str, SpatialOp] = {
    "involution": ChannelwiseOp(_INVOLUTION),
    "bivolution": ChannelwiseOp(_BIVOLUTION),
}

NECKS: dict[str, SpatialOp] = {"convolution": CONVOLUTION, "dcdc": ChannelwiseOp(partial_layer(DCDC)), **_OPERATORS}
"""Replacements of the 3×3 convolutions behind the pyramid's sums."""

HEADS: dict[str, SpatialOp | None] = {"convolution": None, **_OPERATORS}
"""Replacements of the 3×3 convolutions of the dense head and of the mask head."""

UPSAMPLERS: dict[str, Upsampler] = {
    "nearest": Nearest,
    "bilinear": Bilinear,
    "deconvolution": Deconvolution,
    "pixel_shuffle": PixelShuffle,
    "carafe": CARAFE,
    "ddf_up": DDFUp,
}
"""Between the pyramid's levels."""


@dataclasses.dataclass(frozen=True)
class DetectorConfig(abc.ABC):
    """What all detectors share."""

    task: ClassVar[str] = "detection"

    backbone: str = "resnet50"
    """The name of a classifier."""
    backbone_options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    """Of the classifier's configuration."""
    stem_kernel_size: int | None = None
    """Of the stem's operator, where the backbone has this option: 7 in the involution repository's detectors."""
    neck: Literal["convolution", "involution", "dcdc", "bivolution"] = "convolution"
    """The operator behind the pyramid's sums, one of `NECKS`."""
    head: Literal["convolution", "involution", "bivolution"] = "convolution"
    """The operator of the dense head and of the mask head, one of `HEADS`."""
    upsampler: Literal["nearest", "bilinear", "deconvolution", "pixel_shuffle", "carafe", "ddf_up"] = "nearest"
    """Between the pyramid's levels, one of `UPSAMPLERS`."""
    channels: int = 256
    """Of the pyramid and of the heads."""
    num_classes: int = 80
    """Of things."""
    in_channels: int = 3
    dtype: Any = jnp.float32
    """Compute dtype. Boxes, scores and losses are computed in float32 (float64 for float64)."""
    param_dtype: Any = jnp.float32
    """Storage dtype."""

    def __post_init__(self) -> None:
        python_fields(self)
        for name, known in (("neck", NECKS), ("head", HEADS), ("upsampler", UPSAMPLERS)):
            if getattr(self, name) not in known:
                raise UserError(f"`{name}` must be one of {', '.join(known)}, got {getattr(self, name)!r}.")

    @abc.abstractmethod
    def build(self, *, rngs: nnx.Rngs) -> Detector: ...

    def inputs(self, height: int, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the inputs for one image of this size."""
        return (jax.ShapeDtypeStruct((1, height, width, self.in_channels), jnp.float32),)

    def backbone_fields(self) -> dict[str, Any]:
        """Options of the backbone's configuration."""
        stem = {} if self.stem_kernel_size is None else {"stem_kernel_size": self.stem_kernel_size}
        return {"in_channels": self.in_channels, **self.dtypes, **self.backbone_options, **stem}

    @property
    def dtypes(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    @property
    def neck_factory(self) -> SpatialOp:
        return NECKS[self.neck]

    @property
    def upsampler_factory(self) -> Upsampler:
        return UPSAMPLERS[self.upsampler]

    @property
    def dense_conv_factory(self) -> SpatialOp:
        """Of the 3×3 convolutions on each level."""
        return HEADS[self.head] or _conv(nnx.initializers.normal(0.01))

    @property
    def mask_conv_factory(self) -> SpatialOp:
        return HEADS[self.head] or _conv(normal_fan_out)


@dataclasses.dataclass(frozen=True)
class RetinaNetConfig(DetectorConfig):
    """RetinaNet: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017."""

    head_depth: int = 4
    """3×3 convolutions before the last, of classes and of boxes each."""
    retina: RetinaSettings = RetinaSettings()

    def build(self, *, rngs: nnx.Rngs) -> RetinaNet:
        return RetinaNet(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class TwoStageConfig(DetectorConfig):
    """What all detectors with proposals share."""

    rpn: RPNSettings = RPNSettings()


@dataclasses.dataclass(frozen=True)
class RCNNConfig(TwoStageConfig):
    """Faster R-CNN (Ren et al., NeurIPS 2015) and Mask R-CNN (He et al., ICCV 2017)."""

    masks: bool = False
    """Whether masks are found."""
    regions: RegionSettings = RegionSettings()

    def build(self, *, rngs: nnx.Rngs) -> Detector:
        return RCNN(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class PanopticFPNConfig(RCNNConfig):
    """Panoptic FPN: Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019."""

    num_stuff: int = 53
    """Classes of stuff."""
    semantic_channels: int = 128
    """Of the semantic head."""
    fusion: FusionSettings = FusionSettings()

    def build(self, *, rngs: nnx.Rngs) -> Detector:
        return PanopticFPN(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class HTCConfig(TwoStageConfig):
    """Hybrid Task Cascade: Chen et al., "Hybrid Task Cascade for Instance Segmentation", CVPR 2019."""

    num_semantic: int = 183
    """Classes of the semantic branch."""
    cascade: CascadeSettings = CascadeSettings()

    def build(self, *, rngs: nnx.Rngs) -> Detector:
        return HTC(self, rngs=rngs)


_LOW_QUALITY = RegionSettings(matcher=Matcher(0.5, 0.5, least=0.5))
_PANOPTIC = dataclasses.replace(_LOW_QUALITY, detection=DetectionSettings(score=0.6, by_class=False))
_CASCADE_RPN = RPNSettings(whole=True, beta=1 / 9, training=ProposalSettings(2000, 2000))

FAMILIES: dict[str, DetectorConfig] = {
    "retinanet": RetinaNetConfig(),
    "faster_rcnn": RCNNConfig(),
    "mask_rcnn": RCNNConfig(masks=True, regions=_LOW_QUALITY),
    "htc": HTCConfig(rpn=_CASCADE_RPN),
    "panoptic_fpn": PanopticFPNConfig(masks=True, regions=_PANOPTIC),
}
"""MMDetection's settings of each detector."""

BACKBONES = ("resnet50", "resnet101", "rednet50", "dcdc_resnet26", "dcdc_resnet50", "binet50", "ddf_resnet50")


def _conv(kernel_init: Any) -> SpatialOp:
    return partial_layer(Conv, use_bias=True, kernel_init=kernel_init, bias_init=nnx.initializers.zeros)


def _factory(family: str, backbone: str) -> Callable[[], DetectorConfig]:
    def factory() -> DetectorConfig:
        return dataclasses.replace(FAMILIES[family], backbone=backbone)

    factory.__name__ = factory.__qualname__ = f"{family}_{backbone}"
    factory.__doc__ = f"{type(FAMILIES[family]).__doc__} The backbone is {backbone}."
    return factory


for _family in FAMILIES:
    for _backbone in (*BACKBONES, *(["resnext101_32x4d"] if _family == "htc" else [])):
        register(_factory(_family, _backbone))
