"""DMSG: depth upsampled in steps of 2, guided by features of the image at each of the resolutions.

The network works on high frequencies: on depth less its local mean, guided by luma less its local mean. What it finds
is added to the local mean of depth, upsampled by cubic interpolation.

Chosen here: transposed convolutions that exactly double the resolution, inputs divided by their standard deviation, and
depth sampled at pixel S // 2 of S. Kernel sizes and widths were not checked against the authors' network.

Reference: Hui et al., "Depth Map Super-Resolution by Deep Multi-Scale Guidance", ECCV 2016.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import cubic_interpolation, max_pool, neighbours
from ddf_jax.layers import Conv
from ddf_jax.layers.initializers import VarianceScaling, normal_fan_in, uniform_bias
from ddf_jax.layers.inputs import promote_dtype
from ddf_jax.models.depth_network import DepthConfig, DepthUpsampler
from ddf_jax.models.initial_keys import InitialKeys
from ddf_jax.models.registry import register
from pallas_kernels import square_root

LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class MultiScaleGuidanceConfig(DepthConfig):
    """Layers of 5×5, but for the first over the image, of 7×7, and a PReLU after each but the last."""

    channels: int = 32
    """Of every hidden layer but the first ones."""
    depth_channels: int = 64
    """Of the first layer over depth."""
    image_channels: int = 49
    """Of the first layer over the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale < 2 or self.scale & (self.scale - 1):
            raise UserError(f"`scale` must be a power of two, 2 or more, got {self.scale}.")
        if min(sizes := (self.channels, self.depth_channels, self.image_channels)) < 1:
            raise UserError(f"`channels`, `depth_channels` and `image_channels` must be at least 1, got {sizes}.")

    def build(self, *, rngs: nnx.Rngs) -> "MultiScaleGuidance":
        return MultiScaleGuidance(self, rngs=rngs)


class MultiScaleGuidance(DepthUpsampler):
    """The network of `MultiScaleGuidanceConfig`.

    The features of the image are pooled to half their resolution before each step but the last. Each step doubles the
    resolution of depth's features, and two layers (after the last step three) fuse them with the image's.
    """

    def __init__(self, config: MultiScaleGuidanceConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        width, steps = config.channels, config.scale.bit_length() - 1
        self.enter_image = RectifiedConv(1, config.image_channels, kernel_size=7, dtypes=dtypes)
        self.image_layers = _stack([config.image_channels] + [width] * steps, dtypes)
        self.enter = RectifiedConv(1, config.depth_channels, dtypes=dtypes)
        first = RectifiedConv(config.depth_channels, width, doubling=2, dtypes=dtypes)
        others = [RectifiedConv(width, width, doubling=1, dtypes=dtypes) for _ in range(steps - 1)]
        self.ups = nnx.List([first, *others])
        depths = [2] * (steps - 1) + [3]
        self.fusions = nnx.List([_stack([2 * width] + [width] * depth, dtypes) for depth in depths])
        self.leave = Conv(width, 1, kernel_size=5, use_bias=True, kernel_init=normal_fan_in, **dtypes)
        self.config = config

    def refine(self, image: Array, depth: Array, *base: Array) -> Array:
        luma = _luma(image)
        detail = luma - _local_mean(luma)
        deviation = square_root(jnp.square(detail).mean((1, 2, 3), keepdims=True))
        values = depth[..., :1]
        mean = _local_mean(values)
        guides = self._guides((detail / (deviation + 1e-3)).astype(self.config.dtype))
        x = self.enter((values - mean).astype(self.config.dtype))
        for up, fusion, guide in zip(self.ups, self.fusions, reversed(guides), strict=True):
            x = jnp.concatenate([up(x), guide], -1)
            for layer in fusion:
                x = layer(x)
        height, width = image.shape[1:3]
        smooth = cubic_interpolation(mean, height=height, width=width, scale=self.config.scale)
        return smooth + self.leave(x).astype(jnp.float32)

    def _guides(self, x: Array) -> list[Array]:
        """Features of the image for each step, from the last to the first."""
        first, *others = self.image_layers
        guides = [first(self.enter_image(x))]
        for layer in others:
            guides.append(max_pool(layer(guides[-1])))
        return guides


class RectifiedConv(nnx.Module):
    """K×K convolution and a PReLU, whose slope below 0 is one of each channel. With `doubling` it is a transposed one.

    That has a stride of 2 and puts pixel i at 2·i or, with `doubling=2`, at 2·i + 1. After one of the latter and any
    number of the former, pixel i lies at S·i + S // 2, where depth was sampled.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 5,
        doubling: int = 0,
        dtypes: dict[str, Any],
    ):
        if doubling:
            border = (kernel_size // 2 + doubling - 1, kernel_size // 2 + 2 - doubling)
            self.conv: Any = nnx.ConvTranspose(
                in_channels,
                out_channels,
                (kernel_size, kernel_size),
                2,
                padding=(border, border),
                kernel_init=VarianceScaling(8.0, "fan_in", "normal"),  # each output sees a quarter of the kernel
                bias_init=uniform_bias(in_channels * kernel_size**2),
                promote_dtype=promote_dtype,
                **dtypes,
            )
        else:
            self.conv = Conv(
                in_channels,
                out_channels,
                kernel_size=kernel_size,
                use_bias=True,
                kernel_init=normal_fan_in,
                **dtypes,
            )
        self.slope = nnx.Param(jnp.full(out_channels, 0.25, dtypes["param_dtype"]))

    def __call__(self, x: Array) -> Array:
        x = self.conv(x)
        slope = self.slope[...].astype(x.dtype).reshape(1, 1, 1, -1)
        return jax.nn.relu(x) - slope * jax.nn.relu(-x)


def _stack(channels: Sequence[int], dtypes: dict[str, Any]) -> nnx.List[RectifiedConv]:
    """Layers of 5×5 from each number of channels to the next one."""
    return nnx.List([RectifiedConv(*pair, dtypes=dtypes) for pair in itertools.pairwise(channels)])


def _luma(image: Array) -> Array:
    """[B, H, W, 1]: of three colours Rec. 601's, of others the mean."""
    count = image.shape[-1]
    weights = LUMA if count == 3 else [1 / count] * count
    return jnp.matmul(image, jnp.asarray(weights, image.dtype)[:, None], precision="highest")


def _local_mean(x: Array) -> Array:
    """The mean of each 3×3 window; the border is repeated."""
    return sum(neighbours(x), x) / 9


@register
def dmsg(*, scale: int = 4) -> MultiScaleGuidanceConfig:
    """DMSG: deep multi-scale guidance of depth upsampling (Hui et al., ECCV 2016)."""
    return MultiScaleGuidanceConfig(scale=scale)
