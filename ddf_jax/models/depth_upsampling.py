"""Joint (RGB-guided) depth upsampling: low-resolution depth and an image to depth at the image's resolution.

Every network is called as `model(image, low)` with an image [B, H, W, 3] in [0, 1] and depth [B, ⌈H/S⌉, ⌈W/S⌉, 1] in
any unit, 0 in holes. It returns depth [B, H, W, 1] in the same unit, in float32, with holes filled. A learned residual
may take depth near 0 below it. H and W need not be multiples of S. Low-resolution pixel (i, j) is sampled at pixel
(S·i + S // 2, S·j + S // 2) of the image.

References: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Figure 6b; Su et al., "Pixel-Adaptive
Convolutional Neural Networks", CVPR 2019, Section 4; Li et al., "Deep Joint Image Filtering", ECCV 2016, and
"Joint Image Filtering with Deep Convolutional Networks", TPAMI 2019.
"""

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import depth_to_space, neighbours, space_to_depth
from ddf_jax.layers import PointwiseConv
from ddf_jax.models.depth_filters import KINDS, DepthFilters
from ddf_jax.models.depth_network import DepthConfig, DepthUpsampler, ResidualConfig, apply_stack, conv_stack
from ddf_jax.models.guided_steps import DDFStep, GuidedStep, PACStep, pointwise
from ddf_jax.models.initial_keys import InitialKeys
from ddf_jax.models.registry import register
from ddf_jax.models.slots import partial_layer


@dataclasses.dataclass(frozen=True)
class StepwiseConfig(ResidualConfig):
    """PAC-Net's layout: encoders of depth and image, guided steps that double the resolution, and a decoder.

    Each encoder works at the resolution of its input. Each step has guidance features of its own."""

    step: GuidedStep = DDFStep
    """Layer that doubles the resolution."""
    channels: int = 32
    """Of every hidden layer."""
    guidance_channels: int = 16
    """Of the guidance of each step."""
    kernel_size: int = 5
    """Of every convolution."""
    depth_layers: int = 3
    guidance_layers: int = 3
    output_layers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale < 2 or self.scale & (self.scale - 1):
            raise UserError(f"`scale` must be a power of two, 2 or more, got {self.scale}.")
        names = ("channels", "guidance_channels", "kernel_size", "depth_layers", "guidance_layers", "output_layers")
        if min(sizes := [getattr(self, name) for name in names]) < 1:
            raise UserError(f"{', '.join(names)} must be at least 1, got {sizes}.")

    def build(self, *, rngs: nnx.Rngs) -> "StepwiseUpsampler":
        return StepwiseUpsampler(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class FiltersConfig(DepthConfig):
    """A residual network at the depth's resolution predicts the filters of `DepthFilters` and a residual.

    The filters upsample depth by S at once."""

    kind: str = "generated"
    """How features become filters: one of `depth_filters.KINDS`."""
    channels: int = 64
    """Of every hidden layer."""
    blocks: int = 3
    """Of two 3×3 convolutions each."""
    iterations: int = 4
    """Propagation iterations with 3×3 filters at the image's resolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS:
            raise UserError(f"`kind` must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        sizes = (self.channels, self.blocks, self.iterations)
        if min(sizes) < 1:
            raise UserError(f"`channels`, `blocks` and `iterations` must be at least 1, got {sizes}.")

    def build(self, *, rngs: nnx.Rngs) -> "FilterUpsampler":
        return FilterUpsampler(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class DeepJointFilterConfig(ResidualConfig):
    """Three convolutional networks of three layers: over upsampled depth, over the image, and over their outputs."""

    widths: tuple[int, int, int] = (96, 48, 1)
    """Channels of the first two networks."""
    joint_widths: tuple[int, int] = (64, 32)
    """Hidden channels of the third."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, count in (("widths", 3), ("joint_widths", 2)):
            if len(sizes := getattr(self, name)) != count or min(sizes) < 1:
                raise UserError(f"`{name}` must be {count} numbers of channels, each at least 1, got {sizes}.")

    def build(self, *, rngs: nnx.Rngs) -> "DeepJointFilter":
        return DeepJointFilter(self, rngs=rngs)


class StepwiseUpsampler(DepthUpsampler):
    """The network of `StepwiseConfig`."""

    def __init__(self, config: StepwiseConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        width, guide, count = config.channels, config.guidance_channels, config.scale.bit_length() - 1
        k = config.kernel_size
        self.encoder = conv_stack([2] + [width] * config.depth_layers, [k] * config.depth_layers, dtypes)
        hidden = [width] * (config.guidance_layers - 1)
        self.guide = conv_stack([config.in_channels, *hidden, guide * count], [k] * config.guidance_layers, dtypes)
        self.steps: Any = nnx.List([config.step(width, guide, first=index == 0, **dtypes) for index in range(count)])
        self.mixes = nnx.List([pointwise(width, width, dtypes) for _ in range(count)])
        self.decoder = conv_stack([width] * config.output_layers + [1], [k] * config.output_layers, dtypes)
        self.config = config

    def refine(self, image: Array, depth: Array, *base: Array) -> Array:
        image, depth = image.astype(self.config.dtype), depth.astype(self.config.dtype)
        x = jax.nn.relu(apply_stack(self.encoder, depth))
        guidance = jnp.split(apply_stack(self.guide, image), len(self.steps), axis=-1)
        for index, (step, mix) in enumerate(zip(self.steps, self.mixes, strict=True)):
            x = jax.nn.relu(mix(step(x, _average_pool(guidance[index], 2 ** (len(self.steps) - 1 - index)))))
        return apply_stack(self.decoder, x).astype(jnp.float32)


class FilterUpsampler(DepthUpsampler):
    """The network of `FiltersConfig`: each of its features describes a block of S×S pixels."""

    def __init__(self, config: FiltersConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        width, kind, pixels = config.channels, KINDS[config.kind], config.scale**2
        self.filters = DepthFilters(config.scale, iterations=config.iterations, param_dtype=config.param_dtype)
        inputs = pixels * (config.in_channels + 1) + 9 + 1
        self.enter = conv_stack([inputs, width], [3], dtypes)
        self.blocks = nnx.List([conv_stack([width] * 3, [3, 3], dtypes) for _ in range(config.blocks)])
        zeros = nnx.initializers.zeros  # the network starts from the prior
        initial = zeros if kind.starts_at_zero else nnx.initializers.variance_scaling(0.1, "fan_in", "normal")
        self.head = PointwiseConv(width, pixels * kind.channels, use_bias=False, kernel_init=initial, **dtypes)
        self.residual = PointwiseConv(width, pixels, use_bias=False, kernel_init=zeros, **dtypes)
        self.config = config

    def refine(self, image: Array, depth: Array, *base: Array) -> Array:
        scale, dtype = self.config.scale, self.config.dtype
        values, valid = jnp.split(depth, 2, axis=-1)
        prior = self.filters.upsample(0.0, image, values, valid)
        # Depth enters as differences: from the sample of the block, and between that sample and its neighbours.
        fine = [prior - jnp.repeat(jnp.repeat(values, scale, axis=1), scale, axis=2), image]
        coarse = jnp.concatenate([values, *(near - values for near in neighbours(values)), valid], -1)
        x = jnp.concatenate([space_to_depth(jnp.concatenate(fine, -1), scale), coarse], -1)
        x = apply_stack(self.enter, x.astype(dtype))
        for block in self.blocks:
            x = x + apply_stack(block, jax.nn.relu(_rms_norm(x)))
        x = jax.nn.relu(x)
        features, residual = (
            depth_to_space(layer(x).astype(jnp.float32), scale) for layer in (self.head, self.residual)
        )
        logits = KINDS[self.config.kind].logits(features, scale)
        return self.filters(logits, image, values, valid) + residual


class DeepJointFilter(DepthUpsampler):
    """The network of `DeepJointFilterConfig`, with convolutions of 9×9, 1×1 and 5×5 in each part."""

    def __init__(self, config: DeepJointFilterConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        sizes = [9, 1, 5]
        self.depth = conv_stack([1, *config.widths], sizes, dtypes)
        self.guide = conv_stack([config.in_channels, *config.widths], sizes, dtypes)
        self.joint = conv_stack([2 * config.widths[-1], *config.joint_widths, 1], sizes, dtypes)
        self.config = config

    def refine(self, image: Array, depth: Array, *base: Array) -> Array:
        both = [
            apply_stack(self.depth, base[0].astype(self.config.dtype)),
            apply_stack(self.guide, image.astype(self.config.dtype)),
        ]
        return apply_stack(self.joint, jnp.concatenate(both, -1)).astype(jnp.float32)


def _rms_norm(x: Array) -> Array:
    """RMSNorm over the channels, without a scale."""
    wide = x.astype(jnp.float32)
    squares = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(squares + 1e-6)).astype(x.dtype)


def _average_pool(x: Array, factor: int) -> Array:
    """Means of blocks: [B, f·H, f·W, C] to [B, H, W, C]."""
    batch, height, width, channels = x.shape
    rows = x.reshape(batch, height // factor, factor, width, channels).mean(2)
    return rows.reshape(batch, height // factor, width // factor, factor, channels).mean(3)


DepthLayout = Literal["steps", "filters"]


@register
def ddf_up_net(
    *, scale: int = 4, layout: DepthLayout = "steps", heads: int = 1, squeeze_ratio: float = 0.2
) -> StepwiseConfig | FiltersConfig:
    """DDF-Up-Net: a network similar to PAC-Net with DDF-Up as its upsampling step (Zhou et al., CVPR 2021, Table 7)."""
    step = partial_layer(DDFStep, heads=heads, squeeze_ratio=squeeze_ratio)
    return _with_layout(layout, scale, step, "generated")


@register
def pac_net(*, scale: int = 4, layout: DepthLayout = "steps") -> StepwiseConfig | FiltersConfig:
    """PAC-Net: joint upsampling with pixel-adaptive convolutions (Su et al., CVPR 2019, Section 4)."""
    return _with_layout(layout, scale, partial_layer(PACStep), "pixel_adaptive")


def _with_layout(layout: DepthLayout, scale: int, step: GuidedStep, kind: str) -> StepwiseConfig | FiltersConfig:
    """The published layout, steps over features, or filters of that kind over depth itself."""
    if layout not in (names := get_args(DepthLayout)):
        raise UserError(f"`layout` must be one of {', '.join(names)}, got {layout!r}.")
    return StepwiseConfig(scale=scale, step=step) if layout == "steps" else FiltersConfig(scale=scale, kind=kind)


@register
def djf(*, scale: int = 4) -> DeepJointFilterConfig:
    """DJF: joint filtering by three convolutional networks (Li et al., "Deep Joint Image Filtering", ECCV 2016)."""
    return DeepJointFilterConfig(scale=scale)


@register
def djf_plus(*, scale: int = 4) -> DeepJointFilterConfig:
    """DJF+: `djf` whose first two networks end in three feature maps (Li et al., TPAMI 2019).

    The paper adds the residual form to DJF, which `djf` has here too: it adds to its `base`. Three feature maps are a
    reading, which was not checked against the authors' network.
    """
    return dataclasses.replace(djf(scale=scale), widths=(96, 48, 3))
