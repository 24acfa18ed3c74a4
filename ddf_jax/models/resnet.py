"""Residual networks: one configuration for all of them, with a slot for a drop-in replacement of 3×3 convolutions.

References: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with the stride on the 3×3
convolution; Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Section 5.
"""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import global_average
from ddf_jax.layers import BatchNorm, Conv, Linear, PointwiseConv
from ddf_jax.layers.activations import placed
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_fields
from ddf_jax.models.blocks import BasicBlock, BlockOptions, Bottleneck, check_blocks, identity
from ddf_jax.models.initial_keys import InitialKeys
from ddf_jax.models.registry import register
from ddf_jax.models.slots import Attention, Classifier, Norm, SpatialOp
from ddf_jax.models.stems import STEMS

BLOCKS: dict[str, Any] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class FeatureInfo(NamedTuple):
    """One stage of `features()`: its channels and its stride in pixels of the input."""

    channels: int
    stride: int


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """A residual network without its parameters."""

    task: ClassVar[str] = "classification"

    block: str = "bottleneck"
    """One of `BLOCKS`."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks in each stage; every stage after the first halves the resolution and doubles the width."""
    width: int = 64
    """Channels of the stem and of the first stage's 3×3 convolutions."""
    inner_ratio: float = 1.0
    """Widens a bottleneck's spatial operator."""
    spatial_op: SpatialOp | tuple[SpatialOp, ...] = Conv
    """Replaces the 3×3 convolutions of the blocks; a tuple has one for each stage, the last for all further ones."""
    pointwise_op: SpatialOp = PointwiseConv
    """Replaces the 1×1 convolutions of a bottleneck's residual branch."""
    stride_in: Literal["conv1", "conv2"] = "conv2"
    """Where a bottleneck has its stride: in the spatial operator or, as in the first ResNets, in the 1×1 convolution
    before it."""
    attention: Attention | tuple[Attention, ...] | None = None
    """At the end of every block's residual branch, before the sum; a tuple has one for each stage, as above."""
    stage_attention: Attention | None = None
    """After every stage but the last."""
    norm: Norm = BatchNorm
    stem: Literal["imagenet", "wide", "deep", "small", "axial", "block", "pointwise"] = "imagenet"
    """"imagenet": a 7×7 convolution of stride 2 and a max-pool. "wide": the same with twice the channels. "deep": three
    3×3 convolutions instead of the 7×7 one. "small", for small images: a 3×3 convolution of stride 1. "axial": three
    blocks of attention along the axes and a max-pool. "block": `stem_op` and a 4×4 max-pool of stride 4. "pointwise": a
    1×1 convolution, `stem_op` of stride 2 and a max-pool."""
    stem_op: SpatialOp = Conv
    """Replaces the middle convolution of the deep stem, and is the operator of the last two stems."""
    in_channels: int = 3
    num_classes: int = 1000
    classifier: Classifier = Linear
    """Makes the head."""
    stochastic_depth: float = 0.0
    """Probability of dropping the last block in training; it grows linearly from 0 at the first block."""
    dropout: float = 0.0
    """Probability of dropping each feature before the head in training."""
    rematerialize: bool = False
    """Whether the derivatives compute the inside of each block again instead of keeping it, for less memory."""
    zero_init_last_norm: bool = False
    """Initialises the last scale of every block with 0, so that the block starts as the identity."""
    dtype: Any = jnp.float32
    """Compute dtype."""
    param_dtype: Any = jnp.float32
    """Storage dtype."""

    def __post_init__(self) -> None:
        python_fields(self)
        check_blocks(self.blocks)
        if self.block not in BLOCKS:
            raise UserError(f"`block` must be one of {sorted(BLOCKS)}, got {self.block!r}.")
        if self.stem not in STEMS:
            raise UserError(f"`stem` must be one of {sorted(STEMS)}, got {self.stem!r}.")
        if self.stride_in not in ("conv1", "conv2"):
            raise UserError(f"`stride_in` must be conv1 or conv2, got {self.stride_in!r}.")
        for field in dataclasses.fields(self):
            if field.name in BLOCKS[self.block].without and (value := getattr(self, field.name)) != field.default:
                raise UserError(
                    f"Blocks of the kind {self.block!r} have no `{field.name}`: leave it out, got {value!r}."
                )
        for name in ("stochastic_depth", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"`{name}` must be a probability in [0, 1), got {getattr(self, name)}.")

    @property
    def unused(self) -> tuple[str, ...]:
        """Fields that the network does not depend on, because its blocks or its stem have no such option."""
        return (*BLOCKS[self.block].without, *(() if STEMS[self.stem].has_op else ("stem_op",)))

    def block_options(self, stage: int) -> BlockOptions:
        """Options of the blocks of a stage."""
        return BlockOptions(
            spatial_op=_of_stage(self.spatial_op, stage),
            pointwise_op=self.pointwise_op,
            norm=self.norm,
            attention=_of_stage(self.attention, stage),
            inner_ratio=self.inner_ratio,
            stride_in=self.stride_in,
            zero_init_last_norm=self.zero_init_last_norm,
        )

    def inputs(self, height: int, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the inputs for one image of this size."""
        return (jax.ShapeDtypeStruct((1, height, width, self.in_channels), jnp.float32),)

    def build(self, *, rngs: nnx.Rngs) -> "ResNet":
        return ResNet(self, rngs=rngs)


class ResNet(nnx.Module):
    """Images [B, H, W, in_channels] to logits [B, num_classes]."""

    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        block = BLOCKS[config.block]
        parts = {"options": config.block_options(0), "op": config.stem_op}
        self.stem = STEMS[config.stem](config.in_channels, config.width, **parts, **dtypes)
        self.stages = nnx.List()
        self.stage_attention = nnx.List()
        channels, position, last = config.width * self.stem.expansion, 0, max(sum(config.blocks) - 1, 1)
        stride = self.stem.stride
        feature_info = []
        for stage, depth in enumerate(config.blocks):
            options, blocks = config.block_options(stage), nnx.List()
            for index in range(depth):
                step = 2 if stage > 0 and index == 0 else 1
                drop = config.stochastic_depth * position / last
                blocks.append(block(channels, config.width * 2**stage, step, options, drop, **dtypes))
                channels = config.width * 2**stage * block.expansion
                stride *= step
                position += 1
            self.stages.append(blocks)
            if config.stage_attention is not None and stage < len(config.blocks) - 1:
                self.stage_attention.append(config.stage_attention(channels, **dtypes))
            feature_info.append(FeatureInfo(channels, stride))
        self.dropout = nnx.Dropout(config.dropout, rngs=rngs) if config.dropout else identity
        self.head = config.classifier(channels, config.num_classes, **dtypes)
        self.feature_info = tuple(feature_info)
        self.config = config

    def __call__(self, x: Array) -> Array:
        return self.head(self.dropout(global_average(self.features(x)[-1])))

    def features(self, x: Array) -> list[Array]:
        """The output of every stage, [B, ceil(H/stride), ceil(W/stride), channels], with those of `feature_info`."""
        x = placed(self.stem(placed(as_feature_map(x, self.config.in_channels, self.config.dtype))))
        outputs = []
        apply = nnx.remat(_apply) if self.config.rematerialize else _apply
        for index, stage in enumerate(self.stages):
            for block in stage:
                x = placed(apply(block, x))
            if index < len(self.stage_attention):
                x = self.stage_attention[index](x)
            outputs.append(x)
        return outputs


def _of_stage(slot: Any, stage: int) -> Any:
    """What a slot has for a stage: of a tuple the last for all further ones."""
    return slot[min(stage, len(slot) - 1)] if isinstance(slot, tuple) else slot


def _apply(block: BasicBlock | Bottleneck, x: Array) -> Array:
    return block(x)


@register
def resnet18() -> ResNetConfig:
    """ResNet-18: basic blocks [2, 2, 2, 2] (He et al., CVPR 2016)."""
    return ResNetConfig(block="basic", blocks=(2, 2, 2, 2))


@register
def resnet26() -> ResNetConfig:
    """ResNet-26: bottlenecks [1, 2, 4, 1], the base of RedNet-26."""
    return ResNetConfig(blocks=(1, 2, 4, 1))


@register
def resnet34() -> ResNetConfig:
    """ResNet-34: basic blocks [3, 4, 6, 3] (He et al., CVPR 2016)."""
    return ResNetConfig(block="basic", blocks=(3, 4, 6, 3))


@register
def resnet38() -> ResNetConfig:
    """ResNet-38: bottlenecks [2, 3, 5, 2], the base of RedNet-38."""
    return ResNetConfig(blocks=(2, 3, 5, 2))


@register
def resnet50() -> ResNetConfig:
    """ResNet-50: bottlenecks [3, 4, 6, 3] (He et al., CVPR 2016)."""
    return ResNetConfig(blocks=(3, 4, 6, 3))


@register
def resnet101() -> ResNetConfig:
    """ResNet-101: bottlenecks [3, 4, 23, 3] (He et al., CVPR 2016)."""
    return ResNetConfig(blocks=(3, 4, 23, 3))


@register
def resnet152() -> ResNetConfig:
    """ResNet-152: bottlenecks [3, 8, 36, 3] (He et al., CVPR 2016)."""
    return ResNetConfig(blocks=(3, 8, 36, 3))
