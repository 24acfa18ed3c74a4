"""What all networks for joint depth upsampling share: the call, the normalisation of depth, and small helpers."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import bicubic_upsample, fill_holes, joint_bilateral_upsample, pad_to
from ddf_jax.layers import Conv
from ddf_jax.layers.initializers import normal_fan_in
from ddf_jax.layers.options import python_fields
from pallas_kernels import square_root


def _bicubic(low: Array, image: Array, scale: int) -> Array:
    return bicubic_upsample(low, height=image.shape[1], width=image.shape[2], scale=scale)


def _joint_bilateral(low: Array, image: Array, scale: int) -> Array:
    return joint_bilateral_upsample(low, image, scale=scale, radius=1)


# (low, image, scale) to depth of the image's size, a multiple of the scale.
BASES: dict[str, Callable[[Array, Array, int], Array]] = {"bicubic": _bicubic, "joint_bilateral": _joint_bilateral}


@dataclasses.dataclass(frozen=True)
class DepthConfig:
    """Inputs and dtypes of a network for joint depth upsampling."""

    task: ClassVar[str] = "depth_upsampling"

    scale: int = 4
    """S, the ratio of the image's resolution to that of the depth."""
    in_channels: int = 3
    """Of the image."""
    dtype: Any = jnp.float32
    """Compute dtype."""
    param_dtype: Any = jnp.float32
    """Storage dtype."""

    def __post_init__(self) -> None:
        python_fields(self)
        if min(self.scale, self.in_channels) < 1:
            raise UserError(f"`scale` and `in_channels` must be at least 1, got {self.scale} and {self.in_channels}.")

    def inputs(self, height: int, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the inputs for one image of this size."""
        low = (1, -(-height // self.scale), -(-width // self.scale), 1)
        return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, height, width, self.in_channels), low))


@dataclasses.dataclass(frozen=True)
class ResidualConfig(DepthConfig):
    """A network that adds a residual to depth upsampled without learning."""

    base: str = "bicubic"
    """The upsampling to add to, one of `BASES`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base not in BASES:
            raise UserError(f"`base` must be one of {', '.join(BASES)}, got {self.base!r}.")


class DepthUpsampler(nnx.Module):
    """Normalises depth, fills its holes, and lets `refine` do the rest."""

    config: Any

    def __call__(self, image: Array, low: Array) -> Array:
        scale, (batch, height, width, channels) = self.config.scale, (*image.shape, 0, 0, 0, 0)[:4]
        expected = (batch, -(-height // scale), -(-width // scale), 1)
        if image.ndim != 4 or low.shape != expected or channels != self.config.in_channels:
            raise UserError(
                f"`image` must be [B, H, W, {self.config.in_channels}] and `low` "
                f"[B, ⌈H/{scale}⌉, ⌈W/{scale}⌉, 1] = {expected}, got {image.shape} and {low.shape}."
            )
        filled = fill_holes(low)
        mean = filled.mean((1, 2, 3), keepdims=True)
        variance = filled.var((1, 2, 3), keepdims=True)
        unit = square_root(variance) + 0.01 * mean + 1e-6
        rows, columns = scale * expected[1], scale * expected[2]
        depth = jnp.concatenate([(filled - mean) / unit, (low > 0).astype(jnp.float32)], -1)
        image = pad_to(image.astype(jnp.float32), rows, columns)
        if isinstance(self.config, ResidualConfig):
            base = BASES[self.config.base](low, image, scale)
            refined = base + unit * self.refine(image - 0.5, depth, (base - mean) / unit)
        else:
            refined = mean + unit * self.refine(image - 0.5, depth)
        return refined[:, :height, :width]

    def refine(self, image: Array, depth: Array, *base: Array) -> Array:
        """Depth at the image's resolution, or the residual to add to the base, in float32.

        Args:
            image: [B, S·h, S·w, C], float32.
            depth: [B, h, w, 2], float32: values of mean 0 and deviation 1, and 1 where they were measured (else 0).
            base: [B, S·h, S·w, 1], float32: depth upsampled without learning, for a `ResidualConfig`.

        Returns:
            [B, S·h, S·w, 1].
        """
        raise NotImplementedError


def conv_stack(channels: Sequence[int], kernel_sizes: Sequence[int], dtypes: dict[str, Any]) -> nnx.List[Conv]:
    """Convolutions from each number of channels to the next one, for `apply_stack`."""
    sizes = zip(channels, channels[1:], kernel_sizes, strict=False)
    options = {"use_bias": True, "kernel_init": normal_fan_in, **dtypes}
    return nnx.List([Conv(inputs, outputs, kernel_size=size, **options) for inputs, outputs, size in sizes])


def apply_stack(convs: Iterable[Conv], x: Array) -> Array:
    """Convolutions in sequence, with a ReLU between any two."""
    for index, conv in enumerate(convs):
        x = conv(jax.nn.relu(x) if index else x)
    return x
