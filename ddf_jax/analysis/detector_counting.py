"""Parameters and multiply-accumulates of detectors, counted as MMDetection counts its own.

MMDetection 2 counts one image of 1280×800 pixels: the backbone, the neck, the dense head on all levels, the box head on
1000 regions and the mask head on 100; of a cascade each stage's heads, and the mask heads with the features of the
earlier ones. What comes between the parts (proposals, NMS, RoIAlign) counts nothing. Its tables print the parameters
that are trained: of the backbone neither the stem nor the first stage.
"""

import dataclasses
import fnmatch
import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ddf_jax.analysis.counting import Complexity, complexity, total
from ddf_jax.analysis.resnet_counting import Size, resnet_parts
from ddf_jax.detection import box_head, mask_head
from ddf_jax.detection.box_head import BoxHead
from ddf_jax.detection.cascade import CascadeHeads
from ddf_jax.detection.frozen import FROZEN
from ddf_jax.detection.mask_head import MaskHead
from ddf_jax.detection.region_heads import RegionHeads
from ddf_jax.detection.semantic import PanopticHead
from ddf_jax.models.detection_networks import RetinaNet
from ddf_jax.models.detectors import DetectorConfig
from ddf_jax.models.registry import get_config
from ddf_jax.models.resnet import ResNetConfig

SIZE: Size = (800, 1280)
BOX_REGIONS = 1000
MASK_REGIONS = 100

Shape = jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class DetectorComplexity:
    """The size of a detector by its parts, named as its modules: `backbone.stem`, `neck`, `regions.box` and others."""

    parts: Mapping[str, Complexity]

    @property
    def total(self) -> Complexity:
        return total(self.parts.values())

    @property
    def trainable_params(self) -> int:
        """Parameters of all parts that no pattern in `FROZEN` matches."""
        return sum(part.params for name, part in self.parts.items() if not _is_frozen(name))

    def total_without(self, names: Collection[str]) -> Complexity:
        """`total` less some parts."""
        return self.total - total(self.parts[name] for name in names)


def count_detector(config: DetectorConfig) -> DetectorComplexity:
    """The size of a detector, with `BOX_REGIONS` and `MASK_REGIONS`, for one image of `SIZE`."""
    backbone = get_config(config.backbone, **config.backbone_fields())
    parts = {f"backbone.{name}": part for name, part in resnet_parts(backbone, SIZE).items() if name != "head"}
    return DetectorComplexity(parts | _behind_backbone(_with_plain_backbone(config, backbone)))


class _Part(NamedTuple):
    """A module and its inputs.

    Args:
      name: of the module.
      module: what is counted.
      inputs: shapes.
      mmcv_excess: by how much `complexity` exceeds mmcv's own count, which sees objects of torch's layer classes alone
        and gives a fully connected layer no bias.
    """

    name: str
    module: Any
    inputs: tuple[Any, ...]
    mmcv_excess: int = 0


class _PlainDetector(NamedTuple):
    """A detector on a plain backbone. Equal ones are counted once."""

    family: type[DetectorConfig]
    options: tuple[tuple[str, Any], ...]
    backbone_options: tuple[tuple[str, Any], ...]


def _with_plain_backbone(config: DetectorConfig, backbone: ResNetConfig) -> _PlainDetector:
    """What is behind the backbone depends only on its stages' channels and strides: a block in each is enough."""
    stem = "small" if backbone.stem == "small" else "imagenet"  # whose stride is the deep one's
    stages = {"block": backbone.block, "width": backbone.width, "blocks": (1,) * len(backbone.blocks), "stem": stem}
    fields = (field.name for field in dataclasses.fields(config))
    options = tuple((name, getattr(config, name)) for name in fields if name not in _OF_BACKBONE)
    return _PlainDetector(type(config), options, tuple(stages.items()))


_OF_BACKBONE = ("backbone", "backbone_options", "stem_kernel_size")


@functools.cache
def _behind_backbone(plain: _PlainDetector) -> dict[str, Complexity]:
    config = plain.family("resnet50", dict(plain.backbone_options), **dict(plain.options))
    model = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))
    features = _maps(model.backbone.feature_info[model.first_level :])
    levels = _maps(model.neck.feature_info)
    parts = [_Part("neck", model.neck, (features,)), *_heads(model, levels)]
    counts = {part.name: complexity(part.module, *part.inputs) - _mmcv(part.mmcv_excess) for part in parts}
    for name, part in counts.items():  # a part inside another one
        for outer in counts:
            if name.startswith(f"{outer}."):
                counts[outer] -= part
    return counts


def _heads(model: Any, levels: list[Shape]) -> Iterator[_Part]:
    if isinstance(model, RetinaNet):
        yield _Part("dense", model.dense, (levels,))
        return
    # MMDetection calls the ReLU of its RPN as a function.
    yield _Part("rpn", model.rpn, (levels,), sum(level.size for level in levels))
    heads, channels = model.regions, levels[0].shape[-1]
    if isinstance(heads, RegionHeads):
        yield _box_head("regions.box", heads.box, channels)
        if heads.mask is not None:
            yield from _mask_head("regions.mask", heads.mask, channels)
    if isinstance(heads, CascadeHeads):
        yield _Part("regions.semantic", heads.semantic, (levels,))
        for stage, (box, mask) in enumerate(zip(heads.boxes, heads.masks, strict=True)):
            yield _box_head(f"regions.boxes.{stage}", box, channels)
            yield from _mask_head(f"regions.masks.{stage}", mask, channels)
    if isinstance(getattr(model, "semantic", None), PanopticHead):
        yield _panoptic_head("semantic", model.semantic, levels)


def _box_head(name: str, head: BoxHead, channels: int) -> _Part:
    layers = head.hidden1, head.hidden2, head.classes, head.deltas
    biases = BOX_REGIONS * sum(layer.out_features for layer in layers)
    return _Part(name, head, (_shape(1, BOX_REGIONS, box_head.BINS, box_head.BINS, channels),), biases)


def _mask_head(name: str, head: MaskHead, channels: int) -> Iterator[_Part]:
    x, wide = (_shape(MASK_REGIONS, bins, bins, channels) for bins in (mask_head.BINS, 2 * mask_head.BINS))
    yield _Part(name, head, (x,) if head.flow is None else (x, x))
    yield _Part(f"{name}.upsample", head.upsample, (x,))
    yield _Part(f"{name}.logits", head.logits, (wide,))


def _panoptic_head(name: str, head: PanopticHead, levels: list[Shape]) -> _Part:
    """MMDetection resizes with a function. A group normalisation is a layer that costs 2 for each value."""
    resized = normalised = 0
    for scale, level in zip(head.scales, levels, strict=False):
        pixels = level.size // level.shape[-1]
        for norm in scale.norms:
            normalised += pixels * len(norm.scale)
            if scale.halvings:
                pixels *= 4
                resized += pixels * len(norm.scale)
    return _Part(name, head, (levels,), resized - 2 * normalised)


def _maps(stages: Any) -> list[Shape]:
    return [_shape(1, *(-(-length // stride) for length in SIZE), channels) for channels, stride in stages]


def _shape(*sizes: int) -> Shape:
    return Shape(sizes, jnp.float32)


def _mmcv(macs: int) -> Complexity:
    return Complexity(0, 0, macs)


def _is_frozen(name: str) -> bool:
    return any(fnmatch.fnmatchcase(f"{name}.", pattern) for pattern in FROZEN)
