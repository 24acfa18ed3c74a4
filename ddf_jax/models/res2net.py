"""Res2Nets: residual networks with hierarchical 3×3 convolutions over groups of channels.

Reference: Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", TPAMI 2019.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import relu
from ddf_jax.layers import norm_relu
from ddf_jax.models import resnet
from ddf_jax.models.blocks import BlockOptions, attention, last_scale, shortcut, stochastic_depth
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig


@dataclasses.dataclass(frozen=True)
class Res2NetOptions(BlockOptions):
    """Options of the blocks, as the fields of `Res2NetConfig` with these names."""

    scale_width: int = 26
    scales: int = 4


@dataclasses.dataclass(frozen=True)
class Res2NetConfig(ResNetConfig):
    """A residual network of `Res2NetBlock`s."""

    block: str = "res2net"
    scale_width: int = 26
    """Channels of each group, for a width of 64."""
    scales: int = 4
    """Number of groups."""

    def block_options(self, stage: int) -> Res2NetOptions:
        options = super().block_options(stage)
        return Res2NetOptions(**vars(options), scale_width=self.scale_width, scales=self.scales)


class Res2NetBlock(nnx.Module):
    """A bottleneck with hierarchical 3×3 convolutions: each group's output is added to the input of the next group.

    The last group is not convolved. Where the block changes the shape, the groups are independent and the last one is
    averaged over 3×3 pixels with the stride.
    """

    expansion = 4
    without: ClassVar[tuple[str, ...]] = ("inner_ratio", "stride_in")

    def __init__(self, in_channels: int, width: int, stride: int, options: Res2NetOptions, drop: float, **dtypes: Any):
        group, out_channels = width * options.scale_width // 64, width * self.expansion
        self.conv1 = options.pointwise_op(in_channels, group * options.scales, stride=1, **dtypes)
        self.norm1 = options.norm(group * options.scales, **dtypes)
        steps = range(options.scales - 1)
        self.convs = nnx.List([options.spatial_op(group, group, stride=stride, **dtypes) for _ in steps])
        self.norms = nnx.List([options.norm(group, **dtypes) for _ in steps])
        self.conv3 = options.pointwise_op(group * options.scales, out_channels, stride=1, **dtypes)
        self.norm3 = options.norm(out_channels, **last_scale(options), **dtypes)
        self.attention = attention(out_channels, options, dtypes)
        self.shortcut = shortcut(in_channels, out_channels, stride, options, dtypes)
        self.drop = stochastic_depth(drop, dtypes["rngs"])
        self.changes = stride != 1 or in_channels != out_channels
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        *groups, last = jnp.split(norm_relu(self.norm1, self.conv1(x)), len(self.convs) + 1, axis=-1)
        outputs: list[Array] = []
        for group, conv, norm in zip(groups, self.convs, self.norms, strict=True):
            y = group if self.changes or not outputs else group + outputs[-1]
            outputs.append(norm_relu(norm, conv(y)))
        outputs.append(_average(last, self.stride) if self.changes else last)
        y = self.attention(self.norm3(self.conv3(jnp.concatenate(outputs, axis=-1))))
        return relu(self.drop(y) + self.shortcut(x))


resnet.BLOCKS["res2net"] = Res2NetBlock


def _average(x: Array, stride: int) -> Array:
    """The mean of 3×3 pixels, including zeros outside the image."""
    window, border = (1, 3, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    sums = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, stride, stride, 1), border)
    return sums / 9


@register
def res2net50_26w_4s() -> Res2NetConfig:
    """Res2Net-50 with 4 groups of 26 channels (Gao et al., TPAMI 2019)."""
    return Res2NetConfig(blocks=resnet.resnet50().blocks)


@register
def res2net101_26w_4s() -> Res2NetConfig:
    """Res2Net-101 with 4 groups of 26 channels (Gao et al., TPAMI 2019)."""
    return Res2NetConfig(blocks=resnet.resnet101().blocks)


@register
def res2net50_14w_8s() -> Res2NetConfig:
    """Res2Net-50 with 8 groups of 14 channels (Gao et al., TPAMI 2019)."""
    return Res2NetConfig(blocks=resnet.resnet50().blocks, scale_width=14, scales=8)
