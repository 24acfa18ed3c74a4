"""Joint depth upsampling: depth of lower resolution and a picture to depth of the picture's resolution.

Every network is called as `model(image, low)`: a picture [B, H, W, 3] in [0, 1] and depth [B, ⌈H/S⌉, ⌈W/S⌉, 1] in any
unit, 0 in holes; it returns depth [B, H, W, 1] in that unit, float32, with holes filled. What a network learned to add
may take depth near 0 below it. H and W need not be multiples of S. Low pixel (i, j) is taken to lie at pixel
(S·i + S // 2, S·j + S // 2) of the picture.

References: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Figure 6b; Su et al., "Pixel-Adaptive
Convolutional Neural Networks", CVPR 2019, Section 4; Li et al., "Deep Joint Image Filtering", ECCV 2016.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional.joint_upsampling import (
    bicubic_upsample,
    depth_to_space,
    fill_holes,
    joint_bilateral_upsample,
    neighbours,
    pad_to,
    space_to_depth,
)
from ddf_jax.layers import Conv, PointwiseConv
from ddf_jax.models.depth_filters import KINDS, DepthFilters
from ddf_jax.models.guided_steps import FAN_IN, DDFStep, GuidedStep, PACStep, pointwise
from ddf_jax.models.initial_keys import InitialKeys
from ddf_jax.models.registry import register
from ddf_jax.models.slots import layer

# (low, picture, scale) to depth of the picture's size, a multiple of the scale.
BASES: dict[str, Callable[[Array, Array, int], Array]] = {
    "bicubic": lambda low, image, scale: bicubic_upsample(
        low, height=image.shape[1], width=image.shape[2], scale=scale
    ),
    "joint_bilateral": lambda low, image, scale: joint_bilateral_upsample(low, image, scale=scale, radius=1),
}


@dataclasses.dataclass(frozen=True)
class DepthConfig:
    """What every network for depth has: inputs and dtypes."""

    target: ClassVar[str] = "depth"

    scale: int = 4
    """S, how many times lower the resolution of the depth is."""
    in_channels: int = 3
    """Of the picture."""
    dtype: Any = jnp.float32
    """Compute dtype."""
    param_dtype: Any = jnp.float32
    """Storage dtype."""

    def __post_init__(self) -> None:
        if min(self.scale, self.in_channels) < 1:
            raise ValueError(f"`scale` and `in_channels` must be at least 1, got {self.scale} and {self.in_channels}.")

    def inputs(self, height: int, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """What the model is called with for one picture of this size."""
        low = (1, -(-height // self.scale), -(-width // self.scale), 1)
        return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, height, width, self.in_channels), low))


@dataclasses.dataclass(frozen=True)
class ResidualConfig(DepthConfig):
    """Of networks that add to upsampled depth."""

    base: str = "bicubic"
    """What is added to: one of `BASES`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base not in BASES:
            raise ValueError(f"`base` must be one of {', '.join(BASES)}, got {self.base!r}.")


@dataclasses.dataclass(frozen=True)
class StepwiseConfig(ResidualConfig):
    """PAC-Net's layout: depth is encoded at its own resolution and the picture at its, then depth's features are
    doubled in steps, each guided by features of the picture of its own, and decoded."""

    step: GuidedStep = DDFStep
    """What doubles the resolution."""
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
            raise ValueError(f"`scale` must be a power of two, 2 or more, got {self.scale}.")
        names = ("channels", "guidance_channels", "kernel_size", "depth_layers", "guidance_layers", "output_layers")
        if min(sizes := [getattr(self, name) for name in names]) < 1:
            raise ValueError(f"{', '.join(names)} must be at least 1, got {sizes}.")

    def build(self, *, rngs: nnx.Rngs) -> "StepwiseUpsampler":
        return StepwiseUpsampler(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class FiltersConfig(DepthConfig):
    """Depth is first chosen and then added to: a residual network at the depth's resolution makes the filters of
    `DepthFilters`, which carry it to the picture's in one step, and a correction."""

    kind: str = "generated"
    """How features become filters: one of `depth_filters.KINDS`."""
    channels: int = 64
    """Of every hidden layer."""
    blocks: int = 3
    """Of two 3×3 convolutions each."""
    sweeps: int = 4
    """Of 3×3 filters at the picture's resolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        sizes = (self.channels, self.blocks, self.sweeps)
        if min(sizes) < 1:
            raise ValueError(f"`channels`, `blocks` and `sweeps` must be at least 1, got {sizes}.")

    def build(self, *, rngs: nnx.Rngs) -> "FilterUpsampler":
        return FilterUpsampler(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class DeepJointFilterConfig(ResidualConfig):
    """Three convolutional networks of three layers: over upsampled depth, over the picture, and over what both give."""

    widths: tuple[int, int, int] = (96, 48, 1)
    """Channels of the first two networks."""
    joint_widths: tuple[int, int] = (64, 32)
    """Hidden channels of the third."""

    def build(self, *, rngs: nnx.Rngs) -> "DeepJointFilter":
        return DeepJointFilter(self, rngs=rngs)


class DepthUpsampler(nnx.Module):
    """What the networks share: they see depth without holes and of deviation 1."""

    config: Any

    def __call__(self, image: Array, low: Array) -> Array:
        scale, (batch, height, width, channels) = self.config.scale, (*image.shape, 0, 0, 0, 0)[:4]
        expected = (batch, -(-height // scale), -(-width // scale), 1)
        if image.ndim != 4 or low.shape != expected or channels != self.config.in_channels:
            raise ValueError(
                f"The picture must be [B, H, W, {self.config.in_channels}] and the depth "
                f"[B, ⌈H/{scale}⌉, ⌈W/{scale}⌉, 1] = {expected}, got {image.shape} and {low.shape}."
            )
        filled = fill_holes(low)
        mean = filled.mean((1, 2, 3), keepdims=True)
        variance = filled.var((1, 2, 3), keepdims=True)
        varies = variance > 0  # the root of 0 has no derivative
        unit = jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1.0)), 0.0) + 0.01 * mean + 1e-6
        rows, columns = scale * expected[1], scale * expected[2]
        depth = jnp.concatenate([(filled - mean) / unit, (low > 0).astype(jnp.float32)], -1)
        picture = pad_to(image.astype(jnp.float32), rows, columns)
        if isinstance(self.config, ResidualConfig):
            base = BASES[self.config.base](low, picture, scale)
            refined = base + unit * self.refine(picture - 0.5, depth, (base - mean) / unit)
        else:
            refined = mean + unit * self.refine(picture - 0.5, depth)
        return refined[:, :height, :width]

    def refine(self, picture: Array, depth: Array, *base: Array) -> Array:
        """Depth of the picture's resolution, or what is added to the base, [B, S·h, S·w, 1]. All of it is float32.

        Args:
          picture: [B, S·h, S·w, C]; depth: [B, h, w, 2], its values and whether they were measured;
          base: [B, S·h, S·w, 1], depth upsampled, where the network adds to it.
        """
        raise NotImplementedError


class StepwiseUpsampler(DepthUpsampler):
    """PAC-Net's layout with any step."""

    def __init__(self, config: StepwiseConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        width, guide, count = config.channels, config.guidance_channels, config.scale.bit_length() - 1
        k = config.kernel_size
        self.encoder = _convs([2] + [width] * config.depth_layers, [k] * config.depth_layers, dtypes)
        hidden = [width] * (config.guidance_layers - 1)
        self.guide = _convs([config.in_channels, *hidden, guide * count], [k] * config.guidance_layers, dtypes)
        self.steps: Any = nnx.List([config.step(width, guide, first=index == 0, **dtypes) for index in range(count)])
        self.mixes = nnx.List([pointwise(width, width, dtypes) for _ in range(count)])
        self.decoder = _convs([width] * config.output_layers + [1], [k] * config.output_layers, dtypes)
        self.config = config

    def refine(self, picture: Array, depth: Array, *base: Array) -> Array:
        picture, depth = picture.astype(self.config.dtype), depth.astype(self.config.dtype)
        x = jax.nn.relu(_chain(self.encoder, depth))
        guidance = jnp.split(_chain(self.guide, picture), len(self.steps), axis=-1)
        for index, (step, mix) in enumerate(zip(self.steps, self.mixes, strict=True)):
            x = jax.nn.relu(mix(step(x, _average(guidance[index], 2 ** (len(self.steps) - 1 - index)))))
        return _chain(self.decoder, x).astype(jnp.float32)


class FilterUpsampler(DepthUpsampler):
    """A residual network whose features are those of S×S pixels each, and the filters and the residual it makes."""

    def __init__(self, config: FiltersConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        width, kind, pixels = config.channels, KINDS[config.kind], config.scale**2
        self.filters = DepthFilters(config.scale, sweeps=config.sweeps, param_dtype=config.param_dtype)
        seen = pixels * (config.in_channels + 1) + 9 + 1
        self.enter = _convs([seen, width], [3], dtypes)
        self.blocks = nnx.List([_convs([width] * 3, [3, 3], dtypes) for _ in range(config.blocks)])
        zeros = nnx.initializers.zeros  # it starts from the prior
        initial = zeros if kind.starts_at_zero else nnx.initializers.variance_scaling(0.1, "fan_in", "normal")
        self.head = PointwiseConv(width, pixels * kind.channels, use_bias=False, kernel_init=initial, **dtypes)
        self.residual = PointwiseConv(width, pixels, use_bias=False, kernel_init=zeros, **dtypes)
        self.config = config

    def refine(self, picture: Array, depth: Array, *base: Array) -> Array:
        scale, dtype = self.config.scale, self.config.dtype
        values, measured = jnp.split(depth, 2, axis=-1)
        chosen = self.filters.choose(0.0, picture, values, measured)
        # What is seen of depth is how it differs: from the block's sample, and between that and those around.
        steps = [chosen - jnp.repeat(jnp.repeat(values, scale, axis=1), scale, axis=2), picture]
        around = jnp.concatenate([values, *(near - values for near in neighbours(values)), measured], -1)
        x = jnp.concatenate([space_to_depth(jnp.concatenate(steps, -1), scale), around], -1)
        x = _chain(self.enter, x.astype(dtype))
        for block in self.blocks:
            x = x + _chain(block, jax.nn.relu(_of_size_1(x)))
        x = jax.nn.relu(x)
        features, residual = (depth_to_space(end(x).astype(jnp.float32), scale) for end in (self.head, self.residual))
        logits = KINDS[self.config.kind].logits(features, scale)
        return self.filters(logits, picture, values, measured) + residual


class DeepJointFilter(DepthUpsampler):
    """Convolutions of 9×9, 1×1 and 5×5 over depth, over the picture, and over the two results."""

    def __init__(self, config: DeepJointFilterConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        sizes = [9, 1, 5]
        self.depth = _convs([1, *config.widths], sizes, dtypes)
        self.guide = _convs([config.in_channels, *config.widths], sizes, dtypes)
        self.joint = _convs([2 * config.widths[-1], *config.joint_widths, 1], sizes, dtypes)
        self.config = config

    def refine(self, picture: Array, depth: Array, *base: Array) -> Array:
        both = [
            _chain(self.depth, base[0].astype(self.config.dtype)),
            _chain(self.guide, picture.astype(self.config.dtype)),
        ]
        return _chain(self.joint, jnp.concatenate(both, -1)).astype(jnp.float32)


def _convs(channels: list[int], sizes: list[int], dtypes: dict[str, Any]) -> nnx.List[nnx.Module]:
    pairs = zip(channels, channels[1:], sizes, strict=False)
    options = {"use_bias": True, "kernel_init": FAN_IN, **dtypes}
    return nnx.List([Conv(given, made, kernel_size=size, **options) for given, made, size in pairs])


def _chain(convs: Any, x: Array) -> Array:
    """One after the other, with a ReLU between any two."""
    for index, conv in enumerate(convs):
        x = conv(jax.nn.relu(x) if index else x)
    return x


def _of_size_1(x: Array) -> Array:
    """x divided by the root of its mean square over channels, as RMSNorm without a scale."""
    wide = x.astype(jnp.float32)
    squares = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(squares + 1e-6)).astype(x.dtype)


def _average(x: Array, factor: int) -> Array:
    """Means of blocks: [B, f·H, f·W, C] to [B, H, W, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))


Layout = Literal["steps", "filters"]


@register
def ddf_up_net(
    *, scale: int = 4, layout: Layout = "steps", heads: int = 1, squeeze_ratio: float = 0.2
) -> StepwiseConfig | FiltersConfig:
    step = layer(DDFStep, heads=heads, squeeze_ratio=squeeze_ratio)
    return _laid_out(layout, scale, step, "generated")


@register
def pac_net(*, scale: int = 4, layout: Layout = "steps") -> StepwiseConfig | FiltersConfig:
    return _laid_out(layout, scale, layer(PACStep), "pixel_adaptive")


def _laid_out(layout: Layout, scale: int, step: GuidedStep, kind: str) -> StepwiseConfig | FiltersConfig:
    """As published, in steps over features; or by filters of that kind over depth itself."""
    if layout not in (names := get_args(Layout)):
        raise ValueError(f"`layout` must be one of {', '.join(names)}, got {layout!r}.")
    return StepwiseConfig(scale=scale, step=step) if layout == "steps" else FiltersConfig(scale=scale, kind=kind)


@register
def djf(*, scale: int = 4) -> DeepJointFilterConfig:
    return DeepJointFilterConfig(scale=scale)
