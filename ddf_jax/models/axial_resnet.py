"""Axial-ResNets: residual networks with attention along columns and then rows in place of each 3×3 convolution.

Reference: Wang et al., "Axial-DeepLab: Stand-Alone Axial-Attention for Panoptic Segmentation", ECCV 2020, as in its
code, whose stem is convolutional. The stem of the paper's full axial network, and its spans of 15 pixels, are a reading
of its text: three axial blocks, whose attention has 32 channels, the first with a stride of 2, and a max-pool.
"""

import dataclasses
from typing import Any, ClassVar

from flax import nnx
from jax import Array

from ddf_jax.functional import max_pool, relu
from ddf_jax.layers import AxialAttention, PointwiseConv, norm_relu
from ddf_jax.models import resnet
from ddf_jax.models.blocks import BlockOptions, attention, last_scale, shortcut, stochastic_depth
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import SpatialOp
from ddf_jax.models.stems import STEMS

SPAN = 15
"""Of the full axial network."""


@dataclasses.dataclass(frozen=True)
class AxialOptions(BlockOptions):
    """Options of the blocks, as the fields of `AxialResNetConfig` with these names."""

    heads: int = 8
    span: int | None = None
    length: int = 56
    """Side of the stage's maps."""


@dataclasses.dataclass(frozen=True)
class AxialResNetConfig(ResNetConfig):
    """A residual network of `AxialBlock`s."""

    block: str = "axial"
    inner_ratio: float = 2.0
    """Channels of a block's attention for each of its width."""
    heads: int = 8
    """Of every attention."""
    image_size: int = 224
    """Side of the images, which decides the number of relative positions; behind the axial stem, the span does."""

    @property
    def unused(self) -> tuple[str, ...]:
        return (*super().unused, *(("image_size",) if self.stem == "axial" else ()))

    def block_options(self, stage: int) -> AxialOptions:
        stride = STEMS[self.stem].stride * 2**stage
        return AxialOptions(
            **vars(super().block_options(stage)),
            heads=self.heads,
            span=SPAN if self.stem == "axial" else None,
            length=-(-self.image_size // stride),
        )


class AxialBlock(nnx.Module):
    """1×1 convolution, attention along columns and along rows, 1×1 convolution to 4·width, and the residual sum."""

    expansion = 4
    without: ClassVar[tuple[str, ...]] = ("spatial_op", "pointwise_op", "stride_in")

    def __init__(self, in_channels: int, width: int, stride: int, options: AxialOptions, drop: float, **dtypes: Any):
        inner, out_channels = int(width * options.inner_ratio), width * self.expansion
        self.down = PointwiseConv(in_channels, inner, **dtypes)
        self.norm1 = options.norm(inner, **dtypes)
        along: dict[str, Any] = {"heads": options.heads, "span": options.span, "length": options.length * stride}
        self.height = AxialAttention(inner, axis="height", **along, **dtypes)
        self.width = AxialAttention(inner, axis="width", stride=stride, **along, **dtypes)
        self.up = PointwiseConv(inner, out_channels, **dtypes)
        self.norm2 = options.norm(out_channels, **last_scale(options), **dtypes)
        self.attention = attention(out_channels, options, dtypes)
        self.shortcut = shortcut(in_channels, out_channels, stride, options, dtypes)
        self.drop = stochastic_depth(drop, dtypes["rngs"])

    def __call__(self, x: Array) -> Array:
        y = norm_relu(self.norm1, self.down(x))
        y = relu(self.width(self.height(y)))
        y = self.attention(self.norm2(self.up(y)))
        return relu(self.drop(y) + self.shortcut(x))


class AxialStem(nnx.Module):
    """Three axial blocks with spans, the first with a stride of 2, and a 3×3 max-pool of stride 2.

    Their attention has as many channels as the stem's width; their other options are those of the first stage.
    """

    stride = 4
    expansion = 4
    has_op = False

    def __init__(self, in_channels: int, width: int, *, options: BlockOptions, op: SpatialOp, **dtypes: Any):
        of_blocks = options if isinstance(options, AxialOptions) else AxialOptions(**vars(options))
        options = dataclasses.replace(of_blocks, inner_ratio=1.0, span=SPAN)
        out_channels = width * self.expansion
        sizes = ((in_channels, 2), (out_channels, 1), (out_channels, 1))
        self.blocks = nnx.List(
            AxialBlock(channels, width, stride, options, 0.0, **dtypes) for channels, stride in sizes
        )

    def __call__(self, x: Array) -> Array:
        for block in self.blocks:
            x = block(x)
        return max_pool(x)


resnet.BLOCKS["axial"] = AxialBlock
STEMS["axial"] = AxialStem


@register
def axial_resnet_s() -> AxialResNetConfig:
    """Axial-ResNet-S: blocks [3, 4, 6, 3] of axial attention (Wang et al., ECCV 2020).

    `stem="axial"` is the paper's full axial network.
    """
    return AxialResNetConfig(blocks=resnet.resnet50().blocks, width=32)
