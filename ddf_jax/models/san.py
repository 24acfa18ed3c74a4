"""SANs: networks of self-attention modules, with 1×1 convolutions alone between them.

Reference: Zhao et al., "Exploring Self-attention for Image Recognition", CVPR 2020, as in the authors' code
(github.com/hszhao/SAN).
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import global_average, halved
from ddf_jax.layers import BatchNorm, Linear, PointwiseConv, SelfAttentionModule, norm_relu
from ddf_jax.layers.activations import placed
from ddf_jax.layers.initializers import uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_fields
from ddf_jax.models.blocks import check_blocks
from ddf_jax.models.initial_keys import InitialKeys
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import FeatureInfo
from ddf_jax.models.slots import Norm, SpatialOp, partial_layer

SQUEEZE = 4
"""Ratio of a block's channels to those of its spatial operator, and of the first stage's channels to the stem's."""


@dataclasses.dataclass(frozen=True)
class SANConfig:
    """A SAN without its parameters."""

    task: ClassVar[str] = "classification"

    blocks: tuple[int, ...] = (1, 2, 4, 1)
    """Blocks in each stage; every stage halves the resolution. The first has four times the channels of the stem, and
    each further one twice those before it."""
    stem_blocks: int = 2
    """Blocks in the stem, at half the resolution of the image: the paper's first stage."""
    width: int = 64
    """Channels of the stem."""
    spatial_op: SpatialOp = SelfAttentionModule
    """In the blocks of the stages, from C to C/4 channels."""
    stem_op: SpatialOp = SelfAttentionModule
    """In the blocks of the stem."""
    norm: Norm = BatchNorm
    stem: Literal["imagenet", "small"] = "imagenet"
    """"small", for small images: the stem does not halve the resolution."""
    in_channels: int = 3
    num_classes: int = 1000
    dtype: Any = jnp.float32
    """Compute dtype."""
    param_dtype: Any = jnp.float32
    """Storage dtype."""

    def __post_init__(self) -> None:
        python_fields(self)
        check_blocks(self.blocks)
        if self.stem_blocks < 1:
            raise UserError(f"`stem_blocks` must be at least 1, got {self.stem_blocks}.")
        if self.stem not in ("imagenet", "small"):
            raise UserError(f'`stem` must be "imagenet" or "small", got {self.stem!r}.')

    def inputs(self, height: int, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the inputs for one image of this size."""
        return (jax.ShapeDtypeStruct((1, height, width, self.in_channels), jnp.float32),)

    def build(self, *, rngs: nnx.Rngs) -> "SAN":
        return SAN(self, rngs=rngs)


class SANBlock(nnx.Module):
    """Normalisation, ReLU, spatial operator to a quarter of the channels, again, 1×1 convolution, residual sum."""

    def __init__(self, channels: int, op: SpatialOp, norm: Norm, **dtypes: Any):
        inner = channels // SQUEEZE
        self.norm1 = norm(channels, **dtypes)
        self.spatial = op(channels, inner, stride=1, **dtypes)
        self.norm2 = norm(inner, **dtypes)
        self.expand = PointwiseConv(inner, channels, use_bias=True, kernel_init=uniform_fan_in, **dtypes)

    def __call__(self, x: Array) -> Array:
        y = self.spatial(norm_relu(self.norm1, x))
        return x + self.expand(norm_relu(self.norm2, y))


class SANStem(nnx.Module):
    """1×1 convolution, normalisation, ReLU; half the resolution; 1×1 convolution, blocks, normalisation, ReLU."""

    def __init__(self, config: SANConfig, **dtypes: Any):
        width = config.width
        self.stride = 2 if config.stem == "imagenet" else 1
        self.conv_in = PointwiseConv(config.in_channels, width, kernel_init=uniform_fan_in, **dtypes)
        self.norm_in = config.norm(width, **dtypes)
        self.transition = PointwiseConv(width, width, kernel_init=uniform_fan_in, **dtypes)
        blocks = [SANBlock(width, config.stem_op, config.norm, **dtypes) for _ in range(config.stem_blocks)]
        self.blocks = nnx.List(blocks)
        self.norm_out = config.norm(width, **dtypes)

    def __call__(self, x: Array) -> Array:
        x = norm_relu(self.norm_in, self.conv_in(x))
        x = self.transition(halved(x) if self.stride == 2 else x)
        for block in self.blocks:
            x = placed(block(x))
        return norm_relu(self.norm_out, x)


class SAN(nnx.Module):
    """Images [B, H, W, in_channels] to logits [B, num_classes].

    Each stage takes the maximum of 2×2 pixels, without a last odd row or column, as the authors' code does. The images
    must have as many rows and columns as `least_side`: 128 for four stages of modules of kernel size 7.
    """

    def __init__(self, config: SANConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        self.stem = SANStem(config, **dtypes)
        self.transitions, self.stages, self.norms = nnx.List(), nnx.List(), nnx.List()
        before, channels, stride = config.width, SQUEEZE * config.width, self.stem.stride
        feature_info = []
        for depth in config.blocks:
            self.transitions.append(PointwiseConv(before, channels, kernel_init=uniform_fan_in, **dtypes))
            blocks = [SANBlock(channels, config.spatial_op, config.norm, **dtypes) for _ in range(depth)]
            self.stages.append(nnx.List(blocks))
            self.norms.append(config.norm(channels, **dtypes))
            stride *= 2
            feature_info.append(FeatureInfo(channels, stride))
            before, channels = channels, 2 * channels
        self.head = Linear(before, config.num_classes, **dtypes)
        self.feature_info = tuple(feature_info)
        self.config = config

    def __call__(self, x: Array) -> Array:
        return self.head(global_average(self.features(x)[-1]))

    @property
    def least_side(self) -> int:
        """Of an image: each module reflects its map, which must be larger than the border."""
        strides = [self.stem.stride, *(info.stride for info in self.feature_info)]
        modules = [stage[0].spatial for stage in (self.stem.blocks, *self.stages)]
        borders = [op.window.border if isinstance(op, SelfAttentionModule) else 0 for op in modules]
        return max(stride * (border + 1) for stride, border in zip(strides, borders, strict=True))

    def features(self, x: Array) -> list[Array]:
        """The output of every stage, [B, ⌊H/stride⌋, ⌊W/stride⌋, channels], with those of `feature_info`."""
        x = placed(self.stem(placed(as_feature_map(x, self.config.in_channels, self.config.dtype))))
        outputs = []
        for transition, stage, norm in zip(self.transitions, self.stages, self.norms, strict=True):
            x = transition(halved(x))
            for block in stage:
                x = placed(block(x))
            x = norm_relu(norm, x)
            outputs.append(x)
        return outputs


def _san(
    blocks: tuple[int, ...],
    stem_blocks: int,
    relation: Literal["pairwise", "patchwise"],
    kernel_size: int,
    stem_kernel_size: int,
) -> SANConfig:
    op, stem_op = (
        partial_layer(SelfAttentionModule, relation=relation, kernel_size=size)
        for size in (kernel_size, stem_kernel_size)
    )
    return SANConfig(blocks, stem_blocks, spatial_op=op, stem_op=stem_op)


@register
def san10(*, kernel_size: int = 7, stem_kernel_size: int = 3) -> SANConfig:
    """SAN10 with pairwise self-attention: blocks [2, 1, 2, 4, 1] (Zhao et al., CVPR 2020)."""
    return _san((1, 2, 4, 1), 2, "pairwise", kernel_size, stem_kernel_size)


@register
def san15(*, kernel_size: int = 7, stem_kernel_size: int = 3) -> SANConfig:
    """SAN15 with pairwise self-attention: blocks [3, 2, 3, 5, 2] (Zhao et al., CVPR 2020)."""
    return _san((2, 3, 5, 2), 3, "pairwise", kernel_size, stem_kernel_size)


@register
def san19(*, kernel_size: int = 7, stem_kernel_size: int = 3) -> SANConfig:
    """SAN19 with pairwise self-attention: blocks [3, 3, 4, 6, 3] (Zhao et al., CVPR 2020)."""
    return _san((3, 4, 6, 3), 3, "pairwise", kernel_size, stem_kernel_size)


@register
def san10_patchwise(*, kernel_size: int = 7, stem_kernel_size: int = 3) -> SANConfig:
    """SAN10 with patchwise self-attention: blocks [2, 1, 2, 4, 1] (Zhao et al., CVPR 2020)."""
    return _san((1, 2, 4, 1), 2, "patchwise", kernel_size, stem_kernel_size)


@register
def san15_patchwise(*, kernel_size: int = 7, stem_kernel_size: int = 3) -> SANConfig:
    """SAN15 with patchwise self-attention: blocks [3, 2, 3, 5, 2] (Zhao et al., CVPR 2020)."""
    return _san((2, 3, 5, 2), 3, "patchwise", kernel_size, stem_kernel_size)


@register
def san19_patchwise(*, kernel_size: int = 7, stem_kernel_size: int = 3) -> SANConfig:
    """SAN19 with patchwise self-attention: blocks [3, 3, 4, 6, 3] (Zhao et al., CVPR 2020)."""
    return _san((3, 4, 6, 3), 3, "patchwise", kernel_size, stem_kernel_size)
