"""DyNets: residual networks whose convolutions mix six kernels for each of half as many output channels.

Reference: Zhang et al., "DyNet: Dynamic Convolution for Accelerating Convolutional Neural Networks", 2020. The paper
publishes no code. Read from its text and its FLOPs: a block predicts the coefficients of all its convolutions from its
input, shortcuts are plain convolutions, and bottlenecks have the stride in their first convolution.
"""

from typing import Any, ClassVar

from flax import nnx
from jax import Array

from ddf_jax.functional import relu
from ddf_jax.layers import norm_relu
from ddf_jax.layers.dynet import CoefficientPrediction, DyNetConv
from ddf_jax.models import resnet
from ddf_jax.models.blocks import BlockOptions, attention, last_scale, shortcut, stochastic_depth
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig


class DyNetBlock(nnx.Module):
    """A basic block of dynamic convolutions: each with normalisation and ReLU, the last ReLU after the residual sum."""

    expansion: ClassVar[int] = 1
    kernel_sizes: ClassVar[tuple[int, ...]] = (3, 3)
    without: ClassVar[tuple[str, ...]] = ("spatial_op", "pointwise_op", "inner_ratio", "stride_in")

    def __init__(self, in_channels: int, width: int, stride: int, options: BlockOptions, drop: float, **dtypes: Any):
        inner, out_channels = [width] * (len(self.kernel_sizes) - 1), width * self.expansion
        inputs, outputs = (in_channels, *inner), (*inner, out_channels)
        at = 1 if len(outputs) == 3 and options.stride_in == "conv2" else 0
        self.coefficients = CoefficientPrediction(in_channels, outputs, **dtypes)
        self.convs = nnx.List(
            DyNetConv(*channels, kernel_size=size, stride=stride if index == at else 1, **dtypes)
            for index, (*channels, size) in enumerate(zip(inputs, outputs, self.kernel_sizes, strict=True))
        )
        norms = [options.norm(channels, **dtypes) for channels in inner]
        self.norms = nnx.List([*norms, options.norm(out_channels, **last_scale(options), **dtypes)])
        self.attention = attention(out_channels, options, dtypes)
        self.shortcut = shortcut(in_channels, out_channels, stride, options, dtypes)
        self.drop = stochastic_depth(drop, dtypes["rngs"])

    def __call__(self, x: Array) -> Array:
        *inner, last = self.coefficients(x)
        y = x
        for conv, norm, coefficients in zip(self.convs, self.norms, inner, strict=False):
            y = norm_relu(norm, conv(y, coefficients))
        y = self.attention(self.norms[-1](self.convs[-1](y, last)))
        return relu(self.drop(y) + self.shortcut(x))


class DyNetBottleneck(DyNetBlock):
    """A bottleneck of dynamic convolutions."""

    expansion = 4
    kernel_sizes = (1, 3, 1)
    without = ("spatial_op", "pointwise_op", "inner_ratio")


resnet.BLOCKS |= {"dynet": DyNetBlock, "dynet_bottleneck": DyNetBottleneck}


@register
def dynet18() -> ResNetConfig:
    """DyNet-18: basic blocks [2, 2, 2, 2] of half the usual width (Zhang et al., 2020)."""
    return ResNetConfig(block="dynet", blocks=resnet.resnet18().blocks, width=32, stem="wide")


@register
def dynet50() -> ResNetConfig:
    """DyNet-50: bottlenecks [3, 4, 6, 3] of half the usual width (Zhang et al., 2020)."""
    return ResNetConfig(
        block="dynet_bottleneck", blocks=resnet.resnet50().blocks, width=32, stem="wide", stride_in="conv1"
    )
