"""Neighbourhood attention transformers.

Reference: Hassani et al., "Neighborhood Attention Transformer", CVPR 2023; layout of
github.com/SHI-Labs/Neighborhood-Attention-Transformer.
"""

import dataclasses
import functools
import itertools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import check_odd, global_average
from ddf_jax.layers import Conv, LayerNorm, Linear, NeighborhoodAttention, PointwiseConv
from ddf_jax.layers.activations import placed
from ddf_jax.layers.initializers import uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.neighborhood import INIT
from ddf_jax.layers.options import python_fields
from ddf_jax.models.blocks import check_blocks, stochastic_depth
from ddf_jax.models.initial_keys import InitialKeys
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import FeatureInfo

_LINEAR: dict[str, Any] = {"kernel_init": INIT, "bias_init": nnx.initializers.zeros}
_gelu = functools.partial(jax.nn.gelu, approximate=False)


@dataclasses.dataclass(frozen=True)
class NATConfig:
    """A neighbourhood attention transformer without its parameters."""

    task: ClassVar[str] = "classification"

    blocks: tuple[int, ...] = (3, 4, 6, 5)
    """Blocks in each stage; every stage after the first halves the resolution and doubles the width."""
    width: int = 64
    """Channels of the first stage."""
    head_channels: int = 32
    """Channels of each head of attention."""
    mlp_ratio: float = 3.0
    """Hidden units of a block's perceptron for each channel."""
    kernel_size: int = 7
    """Of the neighbourhoods."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """"imagenet": two 3×3 convolutions of stride 2. "small", for small images: one of stride 1."""
    in_channels: int = 3
    num_classes: int = 1000
    stochastic_depth: float = 0.0
    """Probability of dropping a branch of the last block in training; it grows linearly from 0 at the first block."""
    dtype: Any = jnp.float32
    """Compute dtype."""
    param_dtype: Any = jnp.float32
    """Storage dtype."""

    def __post_init__(self) -> None:
        python_fields(self)
        check_blocks(self.blocks)
        if self.stem not in ("imagenet", "small"):
            raise UserError(f"`stem` must be 'imagenet' or 'small', got {self.stem!r}.")
        if self.head_channels < 1 or self.width % self.head_channels:
            raise UserError(f"`head_channels` must divide `width` = {self.width}, got {self.head_channels}.")
        check_odd(kernel_size=self.kernel_size)
        if not 0 <= self.stochastic_depth < 1:
            raise UserError(f"`stochastic_depth` must be a probability in [0, 1), got {self.stochastic_depth}.")

    def inputs(self, height: int, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the inputs for one image of this size."""
        return (jax.ShapeDtypeStruct((1, height, width, self.in_channels), jnp.float32),)

    def build(self, *, rngs: nnx.Rngs) -> "NAT":
        return NAT(self, rngs=rngs)


class NAT(nnx.Module):
    """Images [B, H, W, in_channels] to logits [B, num_classes]."""

    def __init__(self, config: NATConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        channels = config.width
        self.embedding = PatchEmbedding(config.in_channels, channels, small=config.stem == "small", **dtypes)
        self.stages, self.downsamples = nnx.List(), nnx.List()
        position, last, stride = 0, max(sum(config.blocks) - 1, 1), self.embedding.stride
        feature_info = []
        for stage, depth in enumerate(config.blocks):
            if stage > 0:
                self.downsamples.append(Downsample(channels, **dtypes))
                channels, stride = 2 * channels, 2 * stride
            blocks = nnx.List()
            for _ in range(depth):
                blocks.append(NATBlock(channels, config, config.stochastic_depth * position / last, **dtypes))
                position += 1
            self.stages.append(blocks)
            feature_info.append(FeatureInfo(channels, stride))
        self.norm = LayerNorm(channels, **dtypes)
        self.head = PooledLinear(channels, config.num_classes, **dtypes)
        self.feature_info = tuple(feature_info)
        self.config = config

    def __call__(self, x: Array) -> Array:
        return self.head(self.norm(self.features(x)[-1]))

    def features(self, x: Array) -> list[Array]:
        """The output of every stage, [B, ceil(H/stride), ceil(W/stride), channels], with those of `feature_info`."""
        x = placed(self.embedding(placed(as_feature_map(x, self.config.in_channels, self.config.dtype))))
        outputs: list[Array] = []
        for index, stage in enumerate(self.stages):
            if outputs:
                x = self.downsamples[index - 1](x)
            for block in stage:
                x = placed(block(x))
            outputs.append(x)
        return outputs


class PatchEmbedding(nnx.Module):
    """Two 3×3 convolutions of stride 2, or one of stride 1, and layer normalisation."""

    def __init__(self, in_channels: int, width: int, *, small: bool, **dtypes: Any):
        widths = (in_channels, width) if small else (in_channels, width // 2, width)
        step, options = 1 if small else 2, {"use_bias": True, "kernel_init": uniform_fan_in, **dtypes}
        pairs = itertools.pairwise(widths)
        self.convs = nnx.List([Conv(given, made, stride=step, **options) for given, made in pairs])
        self.norm = LayerNorm(width, **dtypes)
        self.stride = step ** len(self.convs)

    def __call__(self, x: Array) -> Array:
        for conv in self.convs:
            x = conv(x)
        return self.norm(x)


class Downsample(nnx.Module):
    """3×3 convolution of stride 2 to twice the channels, and layer normalisation."""

    def __init__(self, channels: int, **dtypes: Any):
        self.conv = Conv(channels, 2 * channels, stride=2, kernel_init=uniform_fan_in, **dtypes)
        self.norm = LayerNorm(2 * channels, **dtypes)

    def __call__(self, x: Array) -> Array:
        return self.norm(self.conv(x))


class NATBlock(nnx.Module):
    """Neighbourhood attention and a perceptron of each pixel, each after a normalisation and with a residual sum."""

    def __init__(self, channels: int, config: NATConfig, drop: float, **dtypes: Any):
        heads = channels // config.head_channels
        self.attention_norm = LayerNorm(channels, **dtypes)
        self.attention = NeighborhoodAttention(channels, heads=heads, kernel_size=config.kernel_size, **dtypes)
        self.mlp_norm = LayerNorm(channels, **dtypes)
        self.mlp = Perceptron(channels, int(channels * config.mlp_ratio), **dtypes)
        self.drop = stochastic_depth(drop, dtypes["rngs"])

    def __call__(self, x: Array) -> Array:
        x = x + self.drop(self.attention(self.attention_norm(x)))
        return x + self.drop(self.mlp(self.mlp_norm(x)))


class Perceptron(nnx.Module):
    """Two linear layers with a GELU between them, for each pixel."""

    def __init__(self, channels: int, hidden: int, **dtypes: Any):
        self.expand = PointwiseConv(channels, hidden, use_bias=True, **_LINEAR, **dtypes)
        self.reduce = PointwiseConv(hidden, channels, use_bias=True, **_LINEAR, **dtypes)

    def __call__(self, x: Array) -> Array:
        return self.reduce(_gelu(self.expand(x)))


class PooledLinear(nnx.Module):
    """Linear layer of the mean over all pixels: [B, H, W, C] to [B, classes]."""

    def __init__(self, channels: int, classes: int, **dtypes: Any):
        self.linear = Linear(channels, classes, **_LINEAR, **dtypes)

    def __call__(self, x: Array) -> Array:
        return self.linear(global_average(x))


@register
def nat_mini() -> NATConfig:
    """NAT-Mini: blocks [3, 4, 6, 5] (Hassani et al., CVPR 2023)."""
    return NATConfig()


@register
def nat_tiny() -> NATConfig:
    """NAT-Tiny: blocks [3, 4, 18, 5] (Hassani et al., CVPR 2023)."""
    return NATConfig(blocks=(3, 4, 18, 5))
