"""Joint depth upsampling: depth of lower resolution and a picture to depth of the picture's resolution.

Every network is called as `model(image, low)`: a picture [B, H, W, 3] in [0, 1] and depth [B, ⌈H/S⌉, ⌈W/S⌉, 1] in any
unit, 0 in holes; it returns depth [B, H, W, 1] in that unit, float32 and without holes. H and W need not be multiples
of S. Low pixel (i, j) is taken to lie at pixel (S·i + S // 2, S·j + S // 2) of the picture.

References: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Figure 6b; Su et al., "Pixel-Adaptive
Convolutional Neural Networks", CVPR 2019, Section 4; Li et al., "Deep Joint Image Filtering", ECCV 2016.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.layers import Conv
from ddf_jax.layers.joint_upsampling import (
    bicubic_upsample,
    depth_to_space,
    fill_holes,
    joint_bilateral_upsample,
    pad_to,
    space_to_depth,
)
from ddf_jax.models.depth_filters import DepthFilters
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
FILTERS = "filters"  # depth is chosen by `DepthFilters`, not added to


@dataclasses.dataclass(frozen=True)
class DepthConfig:
    """What every network for depth has: inputs, residual and dtypes."""

    target: ClassVar[str] = "depth"

    scale: int = 4
    """S, how many times lower the resolution of the depth is."""
    in_channels: int = 3
    """Of the picture."""
    base: str = "bicubic"
    """What the network adds to: one of `BASES`, or in PAC-Net's layout "filters", which `DepthFilters` explains."""
    dtype: Any = jnp.float32
    """Compute dtype."""
    param_dtype: Any = jnp.float32
    """Storage dtype."""

    def __post_init__(self) -> None:
        bases = [*BASES, FILTERS] if isinstance(self, StepwiseConfig) else [*BASES]
        if self.base not in bases:
            raise ValueError(f"`base` must be one of {', '.join(bases)}, got {self.base!r}.")

    def inputs(self, height: int, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """What the model is called with for one picture of this size."""
        low = (1, -(-height // self.scale), -(-width // self.scale), 1)
        return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, height, width, self.in_channels), low))


@dataclasses.dataclass(frozen=True)
class StepwiseConfig(DepthConfig):
    """PAC-Net's layout: depth is encoded at its own resolution and the picture at its, then depth's features are
    doubled in steps, each guided by features of the picture of its own, and decoded. With "filters" as its base, the
    features are also of depth that `DepthFilters` has chosen by colour alone, and are decoded to what chooses again."""

    step: GuidedStep = DDFStep
    """What doubles the resolution."""
    channels: int = 32
    """Of every hidden layer."""
    guidance_channels: int = 16
    """Of the guidance of each step."""
    kernel_size: int = 5
    """Of every convolution but the last where `base` is "filters", which is 1×1."""
    depth_layers: int = 3
    guidance_layers: int = 3
    guidance_stride: int = 1
    """A divisor of S: the picture's layers have so many times less than its resolution, for its pixels are folded into
    channels before them and unfolded behind them."""
    guidance_width: int | None = None
    """Of the picture's hidden layers, where it is not `channels`."""
    output_layers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale < 2 or self.scale & (self.scale - 1):
            raise ValueError(f"`scale` must be a power of two, 2 or more, got {self.scale}.")
        if self.guidance_stride < 1 or self.scale % self.guidance_stride:
            raise ValueError(f"`guidance_stride` must divide `scale`, {self.scale}, got {self.guidance_stride}.")
        if min(self.depth_layers, self.guidance_layers, self.output_layers) < 1:
            raise ValueError("`depth_layers`, `guidance_layers` and `output_layers` must be at least 1.")

    def build(self, *, rngs: nnx.Rngs) -> "StepwiseUpsampler":
        return StepwiseUpsampler(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class DeepJointFilterConfig(DepthConfig):
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
        scale, (batch, height, width, channels) = self.config.scale, image.shape
        expected = (batch, -(-height // scale), -(-width // scale), 1)
        if low.shape != expected or channels != self.config.in_channels:
            raise ValueError(
                f"The picture must be [B, H, W, {self.config.in_channels}] and the depth "
                f"[B, ⌈H/{scale}⌉, ⌈W/{scale}⌉, 1] = {expected}, got {image.shape} and {low.shape}."
            )
        filled = fill_holes(low)
        mean = filled.mean((1, 2, 3), keepdims=True)
        unit = filled.std((1, 2, 3), keepdims=True) + 0.01 * mean + 1e-6
        rows, columns = scale * expected[1], scale * expected[2]
        depth = jnp.concatenate([(filled - mean) / unit, (low > 0).astype(jnp.float32)], -1)
        picture = pad_to(image.astype(jnp.float32), rows, columns)
        base = BASES[self.config.base](low, picture, scale) if self.config.base in BASES else None
        base = base if base is None else (base - mean) / unit
        return (self.refine(picture - 0.5, depth, base) * unit + mean)[:, :height, :width]

    def refine(self, picture: Array, depth: Array, base: Array | None) -> Array:
        """Depth of the picture's resolution, [B, S·h, S·w, 1]. All of it is float32.

        Args:
          picture: [B, S·h, S·w, C]; depth: [B, h, w, 2], its values and whether they were measured;
          base: [B, S·h, S·w, 1], depth upsampled, or None where the network does that itself.
        """
        raise NotImplementedError


class StepwiseUpsampler(DepthUpsampler):
    """PAC-Net's layout with any step."""

    def __init__(self, config: StepwiseConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        width, guide, count = config.channels, config.guidance_channels, config.scale.bit_length() - 1
        k = config.kernel_size
        self.encoder = _convs([2] + [width] * config.depth_layers, [k] * config.depth_layers, dtypes)
        hidden = [config.guidance_width or width] * (config.guidance_layers - 1)
        folded = config.guidance_stride**2
        chooses = config.base == FILTERS
        ends = (folded * (config.in_channels + chooses), folded * guide * count)
        self.guide = _convs([ends[0], *hidden, ends[1]], [k] * config.guidance_layers, dtypes)
        self.steps: Any = nnx.List([config.step(width, guide, first=index == 0, **dtypes) for index in range(count)])
        self.mixes = nnx.List([pointwise(width, width, dtypes) for _ in range(count)])
        hidden = [width] * (config.output_layers - 1)
        self.filters: Any = DepthFilters(config.scale, param_dtype=config.param_dtype) if chooses else nnx.data(None)
        zeros = {"kernel_init": nnx.initializers.zeros, "use_bias": False}  # it starts from the prior
        last = (DepthFilters.channels, 1, zeros) if chooses else (1, k, {})
        decoder = _convs([width, *hidden], [k] * len(hidden), dtypes)
        self.decoder = nnx.List([*decoder, *_convs([width, last[0]], [last[1]], dtypes | last[2])])
        self.config = config

    def refine(self, picture: Array, depth: Array, base: Array | None) -> Array:
        if base is not None:
            return base + self._decoded(picture, depth)
        values, measured = jnp.split(depth, 2, axis=-1)
        prior = self.filters.prior(picture)
        chosen = self.filters.choose(prior, values, measured)
        features = self._decoded(jnp.concatenate([picture, chosen], -1), depth)
        return self.filters(features, prior, picture, values, measured)

    def _decoded(self, picture: Array, depth: Array) -> Array:
        picture, depth = picture.astype(self.config.dtype), depth.astype(self.config.dtype)
        x = jax.nn.relu(_chain(self.encoder, depth))
        fold = self.config.guidance_stride
        guidance = depth_to_space(_chain(self.guide, space_to_depth(picture, fold)), fold)
        guidance = jnp.split(guidance, len(self.steps), axis=-1)
        for index, (step, mix) in enumerate(zip(self.steps, self.mixes, strict=True)):
            x = jax.nn.relu(mix(step(x, _average(guidance[index], 2 ** (len(self.steps) - 1 - index)))))
        return _chain(self.decoder, x).astype(jnp.float32)


class DeepJointFilter(DepthUpsampler):
    """Convolutions of 9×9, 1×1 and 5×5 over depth, over the picture, and over the two results."""

    def __init__(self, config: DeepJointFilterConfig, *, rngs: nnx.Rngs):
        dtypes = {"dtype": config.dtype, "param_dtype": config.param_dtype, "rngs": InitialKeys(rngs)}
        sizes = [9, 1, 5]
        self.depth = _convs([1, *config.widths], sizes, dtypes)
        self.guide = _convs([config.in_channels, *config.widths], sizes, dtypes)
        self.joint = _convs([2 * config.widths[-1], *config.joint_widths, 1], sizes, dtypes)
        self.config = config

    def refine(self, picture: Array, depth: Array, base: Array | None) -> Array:
        assert base is not None  # the configuration has seen to it
        both = [
            _chain(self.depth, base.astype(self.config.dtype)),
            _chain(self.guide, picture.astype(self.config.dtype)),
        ]
        return base + _chain(self.joint, jnp.concatenate(both, -1)).astype(jnp.float32)


def _convs(channels: list[int], sizes: list[int], dtypes: dict[str, Any]) -> nnx.List[nnx.Module]:
    pairs = zip(channels, channels[1:], sizes, strict=False)
    options = {"use_bias": True, "kernel_init": FAN_IN, **dtypes}
    return nnx.List([Conv(given, made, kernel_size=size, **options) for given, made, size in pairs])


def _chain(convs: Any, x: Array) -> Array:
    """One after the other, with a ReLU between any two."""
    for index, conv in enumerate(convs):
        x = conv(jax.nn.relu(x) if index else x)
    return x


def _average(x: Array, factor: int) -> Array:
    """Means of blocks: [B, f·H, f·W, C] to [B, H, W, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))


@register
def ddf_up_net(*, scale: int = 4, heads: int = 1, squeeze_ratio: float = 0.2) -> StepwiseConfig:
    return StepwiseConfig(scale=scale, step=layer(DDFStep, heads=heads, squeeze_ratio=squeeze_ratio))


@register
def pac_net(*, scale: int = 4) -> StepwiseConfig:
    return StepwiseConfig(scale=scale, step=layer(PACStep))


@register
def djf(*, scale: int = 4) -> DeepJointFilterConfig:
    return DeepJointFilterConfig(scale=scale)
