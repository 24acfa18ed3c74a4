"""The networks of detectors: a backbone, a feature pyramid and heads."""

import abc
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.detection.annotations import Detections, Proposals, Truths
from ddf_jax.detection.cascade import CascadeHeads
from ddf_jax.detection.region_heads import RegionHeads
from ddf_jax.detection.retina_head import RetinaHead
from ddf_jax.detection.rpn import RPNHead
from ddf_jax.detection.semantic import PanopticHead
from ddf_jax.models.fpn import FPN
from ddf_jax.models.initial_keys import InitialKeys
from ddf_jax.models.registry import get_config


class Detector(nnx.Module, abc.ABC):
    """Finds objects in a batch of images: `model(image, size)`.

    Images [B, H, W, 3] are normalised, of any sizes, at the upper left of the batch's; beyond them it is 0. `size` has
    the height and width of each [B, 2]. Boxes are in pixels of the batch's images.
    """

    config: Any
    """Its `DetectorConfig`."""
    first_level = 0
    """The finest stage of the backbone that the pyramid takes."""

    def __init__(self, config: Any, *, rngs: nnx.Rngs, **pyramid: Any):
        self.backbone = get_config(config.backbone, **config.backbone_fields()).build(rngs=rngs)
        del self.backbone.head  # of a classifier
        stages = self.backbone.feature_info[self.first_level :]
        options = {"channels": config.channels, "upsampler": config.upsampler_factory, "op": config.neck_factory}
        self.neck = FPN(stages, **options, **pyramid, **config.dtypes, rngs=rngs)
        self.sampling = rngs["sampling"].fork()
        self.config = config

    @abc.abstractmethod
    def __call__(self, image: Array, size: Array | None = None) -> Detections:
        """The objects in images; without a `size` no image has padding."""

    @abc.abstractmethod
    def loss(self, image: Array, size: Array, truths: Truths, *, fixed_order: bool = False) -> dict[str, Array]:
        """The losses by MMDetection's names, whose sum is minimised; some have one number for each level.

        Args:
          image: [B, H, W, 3].
          size: (height, width) of each image [B, 2].
          truths: the objects.
          fixed_order: whether anchors and regions are chosen in a fixed order instead of at random.
        """

    def levels(self, image: Array) -> list[Array]:
        """The levels of the pyramid, [B, ⌈H/stride⌉, ⌈W/stride⌉, channels] each."""
        return self.neck(self.backbone.features(image)[self.first_level :])

    def key(self, fixed_order: bool) -> Array | None:
        """A new random key; None for a fixed order."""
        return None if fixed_order else self.sampling()


class RetinaNet(Detector):
    """One stage: `RetinaHead` on levels of strides 8 to 128."""

    first_level = 1

    def __init__(self, config: Any, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs, extra_levels=2, extra="convolution")
        options = {"conv": config.dense_conv_factory, "depth": config.head_depth, "settings": config.retina}
        dtypes = {**config.dtypes, "rngs": InitialKeys(rngs)}
        self.dense = RetinaHead(config.channels, config.num_classes, **options, **dtypes)

    def __call__(self, image: Array, size: Array | None = None) -> Detections:
        return self.dense.detect(self.dense(self.levels(image)), _sizes(image, size))

    def loss(self, image: Array, size: Array, truths: Truths, *, fixed_order: bool = False) -> dict[str, Array]:
        del fixed_order  # all anchors count
        outputs = self.dense(self.levels(image))
        return self.dense.loss(outputs, self.dense.targets(outputs, size, truths), truths)


class TwoStageDetector(Detector):
    """A region proposal network on levels of strides 4 to 64, and heads on its proposals."""

    regions: Any
    """The second stage, with `loss(levels, size, proposals, truths, key)` and `detect(levels, size, proposals)`."""

    def __init__(self, config: Any, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        dtypes = {**config.dtypes, "rngs": InitialKeys(rngs)}
        self.rpn = RPNHead(config.channels, conv=config.dense_conv_factory, settings=config.rpn, **dtypes)
        self.regions = self.second_stage(config, dtypes)

    @property
    def learned(self) -> tuple[str, ...]:
        """Fields of `Truths` that the heads are trained on, in addition to boxes and labels."""
        return ()

    @abc.abstractmethod
    def second_stage(self, config: Any, dtypes: dict[str, Any]) -> Any:
        """Makes `regions`."""

    def __call__(self, image: Array, size: Array | None = None) -> Detections:
        levels, size = self.levels(image), _sizes(image, size)
        return self.detect(levels, size, self.proposals(levels, size))

    def detect(self, levels: Sequence[Array], size: Array, proposals: Proposals) -> Detections:
        """The objects among proposals."""
        return self.regions.detect(levels, size, proposals)

    def proposals(self, levels: Sequence[Array], size: Array) -> Proposals:
        """Of the first stage in evaluation."""
        return self.rpn.propose(self.rpn(levels), size, self.config.rpn.evaluation)

    def loss(self, image: Array, size: Array, truths: Truths, *, fixed_order: bool = False) -> dict[str, Array]:
        for name in self.learned:
            truths.given(name)
        return self.loss_on_levels(self.levels(image), size, truths, fixed_order)

    def loss_on_levels(
        self, levels: Sequence[Array], size: Array, truths: Truths, fixed_order: bool
    ) -> dict[str, Array]:
        """`loss` behind the pyramid."""
        outputs = self.rpn(levels)
        losses = self.rpn.loss(outputs, self.rpn.targets(outputs, size, truths, self.key(fixed_order)))
        proposals = self.rpn.propose(outputs, size, self.config.rpn.training)
        return losses | self.regions.loss(levels, size, proposals, truths, self.key(fixed_order))


class RCNN(TwoStageDetector):
    """Faster R-CNN, or Mask R-CNN with masks."""

    @property
    def learned(self) -> tuple[str, ...]:
        return ("masks",) if self.config.masks else ()

    def second_stage(self, config: Any, dtypes: dict[str, Any]) -> RegionHeads:
        conv = config.mask_conv_factory if config.masks else None
        return RegionHeads(config.channels, config.num_classes, conv=conv, settings=config.regions, **dtypes)


class HTC(TwoStageDetector):
    """Hybrid Task Cascade."""

    @property
    def learned(self) -> tuple[str, ...]:
        return ("masks", "semantic")

    def second_stage(self, config: Any, dtypes: dict[str, Any]) -> CascadeHeads:
        return CascadeHeads(
            config.channels,
            config.num_classes,
            num_semantic=config.num_semantic,
            conv=config.mask_conv_factory,
            settings=config.cascade,
            **dtypes,
        )


class PanopticFPN(RCNN):
    """Mask R-CNN with a semantic head."""

    @property
    def learned(self) -> tuple[str, ...]:
        return (*super().learned, "semantic")

    def __init__(self, config: Any, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        dtypes = {**config.dtypes, "rngs": InitialKeys(rngs)}
        self.semantic = PanopticHead(config.channels, config.num_stuff, inner=config.semantic_channels, **dtypes)

    def detect(self, levels: Sequence[Array], size: Array, proposals: Proposals) -> Detections:
        return super().detect(levels, size, proposals)._replace(semantic=self.semantic(levels))

    def loss_on_levels(
        self, levels: Sequence[Array], size: Array, truths: Truths, fixed_order: bool
    ) -> dict[str, Array]:
        losses = super().loss_on_levels(levels, size, truths, fixed_order)
        return losses | {"loss_seg": self.semantic.loss(self.semantic(levels), truths.given("semantic"))}


def total_loss(losses: dict[str, Array]) -> Array:
    """The sum of all losses []."""
    return sum((loss.sum() for loss in losses.values()), start=jnp.zeros((), jnp.result_type(*losses.values())))


def _sizes(image: Array, size: Array | None) -> Array:
    whole = jnp.broadcast_to(jnp.asarray(image.shape[1:3], jnp.int32)[None], (len(image), 2))
    return whole if size is None else size
