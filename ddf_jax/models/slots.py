"""Slots of a network: the protocols that a plugged-in layer meets, and factories of layers with options."""

import dataclasses
from typing import Any, Protocol

from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.layers import BatchNorm, PointwiseConv


class SpatialOp(Protocol):
    """Makes a drop-in replacement for a 3×3 convolution: [B, H, W, in] to [B, ceil(H/stride), ceil(W/stride), out]."""

    def __call__(
        self, in_channels: int, out_channels: int, /, *, stride: int, dtype: Any, param_dtype: Any, rngs: Any
    ) -> Any: ...


class Norm(Protocol):
    """Makes a normalisation: [B, H, W, channels] to the same shape.

    With the option `zero_init_last_norm` of a model it also gets `scale_init`, the initialiser of its scale.
    """

    def __call__(self, channels: int, /, *, dtype: Any, param_dtype: Any, rngs: Any) -> Any: ...


class Attention(Protocol):
    """Makes a module that weights a feature map: [B, H, W, channels] to the same shape."""

    def __call__(self, channels: int, /, *, dtype: Any, param_dtype: Any, rngs: Any) -> Any: ...


class Classifier(Protocol):
    """Makes the head of a classifier: [B, in_channels] to logits [B, out_channels]."""

    def __call__(self, in_channels: int, out_channels: int, /, *, dtype: Any, param_dtype: Any, rngs: Any) -> Any: ...


class Upsampler(Protocol):
    """Makes an upsampler of feature maps, `module(x)`: [B, H, W, channels] to [B, scale·H, scale·W, channels].

    A guided one is called as `module(x, guidance)`. The resolution of the guidance depends on the layer: `DDFUp` (made
    with `guidance_channels`) takes one of x's size, `PACUp` one of the output's size, which defaults to x.
    """

    def __call__(self, channels: int, /, *, scale: int, dtype: Any, param_dtype: Any, rngs: Any) -> Any: ...


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """A layer's class with some of its options, the factory that a slot takes.

    Two factories of the same class and options are equal, unlike two `functools.partial`, and so are configurations.
    """

    layer: Any
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *sizes: int, **others: Any) -> Any:
        return self.layer(*sizes, **dict(self.options), **others)


def partial_layer(layer: Any, **options: Any) -> LayerFactory:
    """The factory of a layer with these options.

    >>> partial_layer(PointwiseConv, use_bias=True) == partial_layer(PointwiseConv, use_bias=True)
    True
    """
    return LayerFactory(layer, tuple(sorted(options.items())))


@dataclasses.dataclass(frozen=True)
class ChannelwiseOp:
    """Fits a layer that does not mix channels, `layer(channels, stride=…)`, into the slot of a spatial operator.

    A bottleneck mixes channels around the slot. A basic block does not: there a 1×1 convolution follows (`mix`).

    Raises:
        UserError: the numbers of channels differ, without `mix`.
    """

    layer: LayerFactory
    mix: bool = False

    def __call__(self, in_channels: int, out_channels: int, /, *, stride: int, **dtypes: Any) -> Any:
        if in_channels != out_channels and not self.mix:
            raise UserError(
                f"A layer that does not mix channels takes as many as it gives, got {in_channels} and {out_channels}. "
                "Use ChannelwiseOp(…, mix=True), which adds a 1×1 convolution."
            )
        spatial = self.layer(in_channels, stride=stride, **dtypes)
        return MixedChannels(spatial, in_channels, out_channels, **dtypes) if self.mix else spatial


class MixedChannels(nnx.Module):
    """An operator that does not mix channels, normalisation, and a 1×1 convolution that mixes them."""

    def __init__(self, spatial: Any, in_channels: int, out_channels: int, **dtypes: Any):
        self.spatial = spatial
        self.norm = BatchNorm(in_channels, **dtypes)
        self.pointwise = PointwiseConv(in_channels, out_channels, **dtypes)

    def __call__(self, x: Array) -> Array:
        return self.pointwise(self.norm(self.spatial(x)))
