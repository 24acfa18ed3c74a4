"""Residual blocks, the parts that a stage of a residual network is made of."""

import dataclasses
from typing import Any, ClassVar, Literal

from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import relu
from ddf_jax.layers import BatchNorm, Conv, PointwiseConv, norm_relu
from ddf_jax.models.initial_keys import InitialKeys
from ddf_jax.models.slots import Attention, Norm, SpatialOp


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """Options of the blocks of a stage, as the fields of `ResNetConfig` with these names."""

    spatial_op: SpatialOp = Conv
    pointwise_op: SpatialOp = PointwiseConv
    norm: Norm = BatchNorm
    attention: Attention | None = None
    inner_ratio: float = 1.0
    stride_in: Literal["conv1", "conv2"] = "conv2"
    zero_init_last_norm: bool = False


class BasicBlock(nnx.Module):
    """Two spatial operators and the residual sum."""

    expansion = 1
    without: ClassVar[tuple[str, ...]] = ("pointwise_op", "inner_ratio", "stride_in")
    """Options that it does not have."""

    def __init__(self, in_channels: int, width: int, stride: int, options: BlockOptions, drop: float, **dtypes: Any):
        self.conv1 = options.spatial_op(in_channels, width, stride=stride, **dtypes)
        self.norm1 = options.norm(width, **dtypes)
        self.conv2 = options.spatial_op(width, width, stride=1, **dtypes)
        self.norm2 = options.norm(width, **last_scale(options), **dtypes)
        self.attention = attention(width, options, dtypes)
        self.shortcut = shortcut(in_channels, width, stride, options, dtypes)
        self.drop = stochastic_depth(drop, dtypes["rngs"])

    def __call__(self, x: Array) -> Array:
        y = norm_relu(self.norm1, self.conv1(x))
        y = self.attention(self.norm2(self.conv2(y)))
        return relu(self.drop(y) + self.shortcut(x))


class Bottleneck(nnx.Module):
    """1×1 convolution, spatial operator with the stride, 1×1 convolution to 4·width, and the residual sum.

    With the option `stride_in="conv1"` the first convolution has the stride.
    """

    expansion = 4
    without: ClassVar[tuple[str, ...]] = ()

    def __init__(self, in_channels: int, width: int, stride: int, options: BlockOptions, drop: float, **dtypes: Any):
        inner, out_channels = int(width * options.inner_ratio), width * self.expansion
        strides = (stride, 1) if options.stride_in == "conv1" else (1, stride)
        self.conv1 = options.pointwise_op(in_channels, inner, stride=strides[0], **dtypes)
        self.norm1 = options.norm(inner, **dtypes)
        self.conv2 = options.spatial_op(inner, inner, stride=strides[1], **dtypes)
        self.norm2 = options.norm(inner, **dtypes)
        self.conv3 = options.pointwise_op(inner, out_channels, stride=1, **dtypes)
        self.norm3 = options.norm(out_channels, **last_scale(options), **dtypes)
        self.attention = attention(out_channels, options, dtypes)
        self.shortcut = shortcut(in_channels, out_channels, stride, options, dtypes)
        self.drop = stochastic_depth(drop, dtypes["rngs"])

    def __call__(self, x: Array) -> Array:
        y = norm_relu(self.norm1, self.conv1(x))
        y = norm_relu(self.norm2, self.conv2(y))
        y = self.attention(self.norm3(self.conv3(y)))
        return relu(self.drop(y) + self.shortcut(x))


class Shortcut(nnx.Module):
    """1×1 convolution and normalisation, where the block changes the shape."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm, **dtypes: Any):
        self.conv = PointwiseConv(in_channels, out_channels, stride=stride, **dtypes)
        self.norm = norm(out_channels, **dtypes)

    def __call__(self, x: Array) -> Array:
        return self.norm(self.conv(x))


def shortcut(in_channels: int, out_channels: int, stride: int, options: BlockOptions, dtypes: dict[str, Any]) -> Any:
    """A `Shortcut` where stride or channels change, otherwise the identity."""
    changes = stride != 1 or in_channels != out_channels
    return Shortcut(in_channels, out_channels, stride, options.norm, **dtypes) if changes else identity


def attention(channels: int, options: BlockOptions, dtypes: dict[str, Any]) -> Any:
    """The block's attention, or the identity."""
    return identity if options.attention is None else options.attention(channels, **dtypes)


def stochastic_depth(rate: float, keys: InitialKeys) -> Any:
    """Leaves out a residual branch of an example with this probability, in training; at 0 it is the identity."""
    return nnx.Dropout(rate, broadcast_dims=(1, 2, 3), rngs=keys.rngs) if rate > 0 else identity


def last_scale(options: BlockOptions) -> dict[str, Any]:
    """The options of the normalisation that ends a branch: its scale starts at 0 with `zero_init_last_norm`."""
    return {"scale_init": nnx.initializers.zeros} if options.zero_init_last_norm else {}


def check_blocks(blocks: tuple[int, ...]) -> None:
    """Checks that every stage, one or more, has blocks.

    Raises:
        UserError: one has none.
    """
    if not blocks or min(blocks) < 1:
        raise UserError(f"`blocks` must be numbers of blocks, 1 or more for each stage, got {blocks}.")


def identity(x: Array) -> Array:
    """x."""
    return x
