"""Stems of residual networks: the layers from the image to the first stage."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import max_pool
from ddf_jax.layers import Conv, PointwiseConv, norm_relu
from ddf_jax.models.blocks import BlockOptions
from ddf_jax.models.slots import SpatialOp


class SmallStem(nnx.Module):
    """3×3 convolution, normalisation, ReLU."""

    stride = 1
    expansion = 1
    has_op = False
    kernel_size, conv_stride = 3, 1

    def __init__(self, in_channels: int, width: int, *, options: BlockOptions, op: SpatialOp, **dtypes: Any):
        self.conv = Conv(in_channels, width, kernel_size=self.kernel_size, stride=self.conv_stride, **dtypes)
        self.norm = options.norm(width, **dtypes)

    def __call__(self, x: Array) -> Array:
        return norm_relu(self.norm, self.conv(x))


class ImageNetStem(SmallStem):
    """7×7 convolution of stride 2, normalisation, ReLU, 3×3 max-pool of stride 2."""

    stride = 4
    kernel_size, conv_stride = 7, 2

    def __call__(self, x: Array) -> Array:
        return max_pool(super().__call__(x))


class WideStem(ImageNetStem):
    """The same with twice the channels."""

    expansion = 2

    def __init__(self, in_channels: int, width: int, **others: Any):
        super().__init__(in_channels, 2 * width, **others)


class DeepStem(nnx.Module):
    """3×3 convolution of stride 2, `op`, 3×3 convolution, each with normalisation and ReLU; 3×3 max-pool, stride 2."""

    stride = 4
    expansion = 1
    has_op = True

    def __init__(self, in_channels: int, width: int, *, options: BlockOptions, op: SpatialOp, **dtypes: Any):
        half = width // 2
        self.conv1 = Conv(in_channels, half, stride=2, **dtypes)
        self.norm1 = options.norm(half, **dtypes)
        self.conv2 = op(half, half, stride=1, **dtypes)
        self.norm2 = options.norm(half, **dtypes)
        self.conv3 = Conv(half, width, **dtypes)
        self.norm3 = options.norm(width, **dtypes)

    def __call__(self, x: Array) -> Array:
        x = norm_relu(self.norm1, self.conv1(x))
        x = norm_relu(self.norm2, self.conv2(x))
        return max_pool(norm_relu(self.norm3, self.conv3(x)))


class BlockStem(nnx.Module):
    """`op` on the pixels of the image, normalisation, ReLU, the maximum of each block of 4×4 pixels."""

    stride = 4
    expansion = 1
    has_op = True

    def __init__(self, in_channels: int, width: int, *, options: BlockOptions, op: SpatialOp, **dtypes: Any):
        self.op = op(in_channels, width, stride=1, **dtypes)
        self.norm = options.norm(width, **dtypes)

    def __call__(self, x: Array) -> Array:
        y = norm_relu(self.norm, self.op(x))
        border = ((0, 0), *((0, 4 * ((side - 1) // 4 + 1) - side) for side in y.shape[1:3]), (0, 0))
        return jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 4, 4, 1), (1, 4, 4, 1), border)


class PointwiseStem(nnx.Module):
    """1×1 convolution, `op` of stride 2, each with normalisation and ReLU; 3×3 max-pool, stride 2."""

    stride = 4
    expansion = 1
    has_op = True

    def __init__(self, in_channels: int, width: int, *, options: BlockOptions, op: SpatialOp, **dtypes: Any):
        self.pointwise = PointwiseConv(in_channels, width, **dtypes)
        self.norm1 = options.norm(width, **dtypes)
        self.op = op(width, width, stride=2, **dtypes)
        self.norm2 = options.norm(width, **dtypes)

    def __call__(self, x: Array) -> Array:
        x = norm_relu(self.norm1, self.pointwise(x))
        return max_pool(norm_relu(self.norm2, self.op(x)))


STEMS: dict[str, Any] = {
    "imagenet": ImageNetStem,
    "wide": WideStem,
    "deep": DeepStem,
    "small": SmallStem,
    "block": BlockStem,
    "pointwise": PointwiseStem,
}
"""Each has its `stride`, `expansion` times the width as its channels, and an operator where `has_op` is true."""
