"""Residual networks: one configuration for all of them, with a slot for what stands where a 3×3 convolution stood.

References: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with the stride on the 3×3
convolution; Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Section 5.
"""

import dataclasses
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.layers import BatchNorm, Conv, PointwiseConv
from ddf_jax.layers.convolution import uniform_bias, uniform_fan_in
from ddf_jax.models.initial_keys import InitialKeys
from ddf_jax.models.registry import register
from pallas_kernels.dynamic_filter.spec import accumulator_dtype


class SpatialOp(Protocol):
    """Makes what stands where a 3×3 convolution stood: [B, H, W, in] to [B, ceil(H/stride), ceil(W/stride), out]."""

    def __call__(
        self, in_channels: int, out_channels: int, /, *, stride: int, dtype: Any, param_dtype: Any, rngs: nnx.Rngs
    ) -> nnx.Module: ...


class FeatureInfo(NamedTuple):
    """One stage of `features()`: its channels and its stride in pixels of the input."""

    channels: int
    stride: int


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """Everything about a residual network but its parameters."""

    block: Literal["basic", "bottleneck"] = "bottleneck"
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks in each stage; every stage after the first halves the resolution and doubles the width."""
    width: int = 64
    """Channels of the stem and of the first stage's 3×3 convolutions."""
    spatial_op: SpatialOp = Conv
    norm: Any = BatchNorm
    stem: Literal["imagenet", "small"] = "imagenet"
    """A 7×7 convolution of stride 2 and a max-pool, or for small images a 3×3 convolution of stride 1."""
    in_channels: int = 3
    num_classes: int = 1000
    stochastic_depth: float = 0.0
    """Probability that the last block is left out in training; it grows linearly from 0 at the first block."""
    zero_init_last_norm: bool = False
    """Starts the last scale of every block at 0, so that the block starts as the identity."""
    dtype: Any = jnp.float32
    """Compute dtype."""
    param_dtype: Any = jnp.float32
    """Storage dtype."""

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise ValueError(f"`block` must be one of {sorted(BLOCKS)}, got {self.block!r}.")
        if self.stem not in ("imagenet", "small"):
            raise ValueError(f"`stem` must be 'imagenet' or 'small', got {self.stem!r}.")
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"`stochastic_depth` must be a probability in [0, 1), got {self.stochastic_depth}.")

    def build(self, *, rngs: nnx.Rngs) -> "ResNet":
        return ResNet(self, rngs=rngs)


class ResNet(nnx.Module):
    """Images [B, H, W, in_channels] to logits [B, num_classes]."""

    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        block = BLOCKS[config.block]
        self.stem = Stem(config, **dtypes)
        self.stages = nnx.List()
        channels, position, last = config.width, 0, max(sum(config.blocks) - 1, 1)
        stride = self.stem.stride
        feature_info = []
        for stage, depth in enumerate(config.blocks):
            blocks = nnx.List()
            for index in range(depth):
                step = 2 if stage > 0 and index == 0 else 1
                drop = config.stochastic_depth * position / last
                blocks.append(block(channels, config.width * 2**stage, step, config, drop, **dtypes))
                channels = config.width * 2**stage * block.expansion
                stride *= step
                position += 1
            self.stages.append(blocks)
            feature_info.append(FeatureInfo(channels, stride))
        self.head = nnx.Linear(
            channels, config.num_classes, kernel_init=uniform_fan_in, bias_init=uniform_bias(channels), **dtypes
        )
        self.feature_info = tuple(feature_info)
        self.config = config

    def __call__(self, x: Array) -> Array:
        x = self.features(x)[-1]
        return self.head(x.mean((1, 2), dtype=accumulator_dtype(x)).astype(x.dtype))

    def features(self, x: Array) -> list[Array]:
        """The output of every stage, [B, ceil(H/stride), ceil(W/stride), channels] as `feature_info` lists them."""
        if x.ndim != 4 or x.shape[-1] != self.config.in_channels:
            raise ValueError(f"Images must be [B, H, W, C] with C = {self.config.in_channels}, got {x.shape}.")
        x = self.stem(x.astype(self.config.dtype))
        outputs = []
        for stage in self.stages:
            for block in stage:
                x = block(x)
            outputs.append(x)
        return outputs


class Stem(nnx.Module):
    """The first layers, up to the first stage."""

    def __init__(self, config: ResNetConfig, **dtypes: Any):
        small = config.stem == "small"
        kernel_size, stride = (3, 1) if small else (7, 2)
        self.conv = Conv(config.in_channels, config.width, kernel_size=kernel_size, stride=stride, **dtypes)
        self.norm = config.norm(config.width, **dtypes)
        self.pool = not small
        self.stride = 1 if small else 4

    def __call__(self, x: Array) -> Array:
        x = jax.nn.relu(self.norm(self.conv(x)))
        if self.pool:
            border = ((0, 0), (1, 1), (1, 1), (0, 0))
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), border)
        return x


class BasicBlock(nnx.Module):
    """Two spatial operators and the residual sum."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, config: ResNetConfig, drop: float, **dtypes: Any):
        self.conv1 = config.spatial_op(in_channels, width, stride=stride, **dtypes)
        self.norm1 = config.norm(width, **dtypes)
        self.conv2 = config.spatial_op(width, width, stride=1, **dtypes)
        self.norm2 = config.norm(width, **_last_scale(config), **dtypes)
        self.shortcut = _shortcut(in_channels, width, stride, config, dtypes)
        self.drop = _stochastic_depth(drop, dtypes["rngs"])

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return jax.nn.relu(self.drop(y) + self.shortcut(x))


class Bottleneck(nnx.Module):
    """1×1 convolution, spatial operator with the stride, 1×1 convolution to 4·width, and the residual sum."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, config: ResNetConfig, drop: float, **dtypes: Any):
        out_channels = width * self.expansion
        self.conv1 = PointwiseConv(in_channels, width, **dtypes)
        self.norm1 = config.norm(width, **dtypes)
        self.conv2 = config.spatial_op(width, width, stride=stride, **dtypes)
        self.norm2 = config.norm(width, **dtypes)
        self.conv3 = PointwiseConv(width, out_channels, **dtypes)
        self.norm3 = config.norm(out_channels, **_last_scale(config), **dtypes)
        self.shortcut = _shortcut(in_channels, out_channels, stride, config, dtypes)
        self.drop = _stochastic_depth(drop, dtypes["rngs"])

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = jax.nn.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return jax.nn.relu(self.drop(y) + self.shortcut(x))


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class Shortcut(nnx.Module):
    """1×1 convolution and normalisation, where the residual's shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: ResNetConfig, **dtypes: Any):
        self.conv = PointwiseConv(in_channels, out_channels, stride=stride, **dtypes)
        self.norm = config.norm(out_channels, **dtypes)

    def __call__(self, x: Array) -> Array:
        return self.norm(self.conv(x))


class MixedChannels(nnx.Module):
    """An operator that keeps channels apart, normalisation, and the 1×1 convolution that mixes them."""

    def __init__(self, spatial: nnx.Module, in_channels: int, out_channels: int, **dtypes: Any):
        self.spatial = spatial
        self.norm = BatchNorm(in_channels, **dtypes)
        self.pointwise = PointwiseConv(in_channels, out_channels, **dtypes)

    def __call__(self, x: Array) -> Array:
        return self.pointwise(self.norm(self.spatial(x)))


@dataclasses.dataclass(frozen=True)
class ChannelwiseOp:
    """Puts a layer that keeps channels apart, `layer(channels, stride=…, **options)`, in a spatial operator's slot.

    A bottleneck mixes channels around the slot; a basic block does not, so there a 1×1 convolution follows (`mix`).
    """

    layer: Any
    options: tuple[tuple[str, Any], ...] = ()
    mix: bool = False

    def __call__(self, in_channels: int, out_channels: int, *, stride: int, **dtypes: Any) -> nnx.Module:
        spatial = self.layer(in_channels, stride=stride, **dict(self.options), **dtypes)
        return MixedChannels(spatial, in_channels, out_channels, **dtypes) if self.mix else spatial


def _shortcut(in_channels: int, out_channels: int, stride: int, config: ResNetConfig, dtypes: dict[str, Any]):
    changes = stride != 1 or in_channels != out_channels
    return Shortcut(in_channels, out_channels, stride, config, **dtypes) if changes else _identity


def _stochastic_depth(rate: float, keys: InitialKeys):
    return nnx.Dropout(rate, broadcast_dims=(1, 2, 3), rngs=keys.rngs) if rate > 0 else _identity


def _identity(x: Array) -> Array:
    return x


def _last_scale(config: ResNetConfig) -> dict[str, Any]:
    return {"scale_init": nnx.initializers.zeros_init()} if config.zero_init_last_norm else {}


@register
def resnet18() -> ResNetConfig:
    return ResNetConfig(block="basic", blocks=(2, 2, 2, 2))


@register
def resnet26() -> ResNetConfig:
    return ResNetConfig(blocks=(1, 2, 4, 1))


@register
def resnet34() -> ResNetConfig:
    return ResNetConfig(block="basic", blocks=(3, 4, 6, 3))


@register
def resnet38() -> ResNetConfig:
    return ResNetConfig(blocks=(2, 3, 5, 2))


@register
def resnet50() -> ResNetConfig:
    return ResNetConfig(blocks=(3, 4, 6, 3))


@register
def resnet101() -> ResNetConfig:
    return ResNetConfig(blocks=(3, 4, 23, 3))


@register
def resnet152() -> ResNetConfig:
    return ResNetConfig(blocks=(3, 8, 36, 3))
