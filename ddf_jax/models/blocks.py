"""Residual blocks: what a stage of a residual network consists of."""

from typing import TYPE_CHECKING, Any

import jax
from flax import nnx
from jax import Array

from ddf_jax.layers import PointwiseConv
from ddf_jax.models.initial_keys import InitialKeys

if TYPE_CHECKING:
    from ddf_jax.models.resnet import ResNetConfig


class BasicBlock(nnx.Module):
    """Two spatial operators and the residual sum."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, config: "ResNetConfig", drop: float, **dtypes: Any):
        self.conv1 = config.spatial_op(in_channels, width, stride=stride, **dtypes)
        self.norm1 = config.norm(width, **dtypes)
        self.conv2 = config.spatial_op(width, width, stride=1, **dtypes)
        self.norm2 = config.norm(width, **last_scale(config), **dtypes)
        self.attention = attention(width, config, dtypes)
        self.shortcut = shortcut(in_channels, width, stride, config, dtypes)
        self.drop = stochastic_depth(drop, dtypes["rngs"])

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = self.attention(self.norm2(self.conv2(y)))
        return jax.nn.relu(self.drop(y) + self.shortcut(x))


class Bottleneck(nnx.Module):
    """1×1 convolution, spatial operator with the stride, 1×1 convolution to 4·width, and the residual sum."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, config: "ResNetConfig", drop: float, **dtypes: Any):
        inner, out_channels = int(width * config.inner_ratio), width * self.expansion
        self.conv1 = PointwiseConv(in_channels, inner, **dtypes)
        self.norm1 = config.norm(inner, **dtypes)
        self.conv2 = config.spatial_op(inner, inner, stride=stride, **dtypes)
        self.norm2 = config.norm(inner, **dtypes)
        self.conv3 = PointwiseConv(inner, out_channels, **dtypes)
        self.norm3 = config.norm(out_channels, **last_scale(config), **dtypes)
        self.attention = attention(out_channels, config, dtypes)
        self.shortcut = shortcut(in_channels, out_channels, stride, config, dtypes)
        self.drop = stochastic_depth(drop, dtypes["rngs"])

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = jax.nn.relu(self.norm2(self.conv2(y)))
        y = self.attention(self.norm3(self.conv3(y)))
        return jax.nn.relu(self.drop(y) + self.shortcut(x))


class Shortcut(nnx.Module):
    """1×1 convolution and normalisation, where the residual's shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: "ResNetConfig", **dtypes: Any):
        self.conv = PointwiseConv(in_channels, out_channels, stride=stride, **dtypes)
        self.norm = config.norm(out_channels, **dtypes)

    def __call__(self, x: Array) -> Array:
        return self.norm(self.conv(x))


def shortcut(in_channels: int, out_channels: int, stride: int, config: "ResNetConfig", dtypes: dict[str, Any]):
    changes = stride != 1 or in_channels != out_channels
    return Shortcut(in_channels, out_channels, stride, config, **dtypes) if changes else identity


def attention(channels: int, config: "ResNetConfig", dtypes: dict[str, Any]):
    return identity if config.attention is None else config.attention(channels, **dtypes)


def stochastic_depth(rate: float, keys: InitialKeys):
    return nnx.Dropout(rate, broadcast_dims=(1, 2, 3), rngs=keys.rngs) if rate > 0 else identity


def last_scale(config: "ResNetConfig") -> dict[str, Any]:
    return {"scale_init": nnx.initializers.zeros_init()} if config.zero_init_last_norm else {}


def identity(x: Array) -> Array:
    return x
