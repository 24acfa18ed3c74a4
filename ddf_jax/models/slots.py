"""What can be plugged into a residual network, and how: protocols, and values that stand for a layer with options."""

import dataclasses
from typing import Any, Protocol

from flax import nnx
from jax import Array

from ddf_jax.layers import BatchNorm, PointwiseConv


class SpatialOp(Protocol):
    """Makes what stands where a 3×3 convolution stood: [B, H, W, in] to [B, ceil(H/stride), ceil(W/stride), out]."""

    def __call__(
        self, in_channels: int, out_channels: int, /, *, stride: int, dtype: Any, param_dtype: Any, rngs: nnx.Rngs
    ) -> nnx.Module: ...


class Attention(Protocol):
    """Makes what weighs a feature map: [B, H, W, channels] to the same shape."""

    def __call__(self, channels: int, /, *, dtype: Any, param_dtype: Any, rngs: nnx.Rngs) -> nnx.Module: ...


class Upsampler(Protocol):
    """Makes what enlarges a feature map, `module(x)`: [B, H, W, channels] to [B, scale·H, scale·W, channels].

    A guided one is called as `module(x, guidance)`. Where its guidance lies is its own: `DDFUp` (made with
    `guidance_channels`) takes one of x's size, `PACUp` one of the output's size, which defaults to x.
    """

    def __call__(self, channels: int, /, *, scale: int, dtype: Any, param_dtype: Any, rngs: nnx.Rngs) -> nnx.Module: ...


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer's class with some of its options: the factory that a slot takes.

    Unlike a `functools.partial` it equals another with the same class and options, and so do configurations.
    """

    make: Any
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *sizes: int, **others: Any) -> nnx.Module:
        return self.make(*sizes, **dict(self.options), **others)


def layer(make: Any, **options: Any) -> Layer:
    """`make` with these options.

    >>> layer(PointwiseConv, use_bias=True) == layer(PointwiseConv, use_bias=True)
    True
    """
    return Layer(make, tuple(sorted(options.items())))


@dataclasses.dataclass(frozen=True)
class ChannelwiseOp:
    """Puts a layer that keeps channels apart, `layer(channels, stride=…)`, in a spatial operator's slot.

    A bottleneck mixes channels around the slot; a basic block does not, so there a 1×1 convolution follows (`mix`).
    """

    layer: Layer
    mix: bool = False

    def __call__(self, in_channels: int, out_channels: int, *, stride: int, **dtypes: Any) -> nnx.Module:
        spatial = self.layer(in_channels, stride=stride, **dtypes)
        return MixedChannels(spatial, in_channels, out_channels, **dtypes) if self.mix else spatial


class MixedChannels(nnx.Module):
    """An operator that keeps channels apart, normalisation, and the 1×1 convolution that mixes them."""

    def __init__(self, spatial: nnx.Module, in_channels: int, out_channels: int, **dtypes: Any):
        self.spatial = spatial
        self.norm = BatchNorm(in_channels, **dtypes)
        self.pointwise = PointwiseConv(in_channels, out_channels, **dtypes)

    def __call__(self, x: Array) -> Array:
        return self.pointwise(self.norm(self.spatial(x)))
