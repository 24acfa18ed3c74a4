"""The static options of a dynamic filter and its shape rules."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jax import Array

Combine = Literal["mul", "add"]


@dataclasses.dataclass(frozen=True)
class FilterSpec:
    """The options that may change the result.

    One form serves both public operators: `dynamic_filter` has ``scale=1`` and `dynamic_upsample` has ``stride=1``.
    Every implementation takes

        x        [B, H, W, C]
        spatial  [B, Ho, Wo, S², G, T] or None
        channel  [B, S², T, C] or None          (not both None)

    and returns ``y [B, S·Ho, S·Wo, C]`` in the dtype of x.

    Args:
      kernel_size: K.
      stride: pixels of x between neighbouring positions of the filter.
      scale: S, the upsampling factor.
      dilation: pixels of x between neighbouring taps.
      combine: how a spatial and a channel filter make one.
    """

    kernel_size: int
    stride: int = 1
    scale: int = 1
    dilation: int = 1
    combine: Combine = "mul"

    @property
    def taps(self) -> int:
        """T = K·K, the number of filter values per output."""
        return self.kernel_size**2

    @property
    def halo(self) -> int:
        """The width of the zero border of x: the pixels that a filter reads beyond its centre."""
        return self.dilation * (self.kernel_size // 2)

    def grid_size(self, size: int) -> int:
        """Positions of the filter along a side of `size` pixels (before upsampling): ceil(size / stride)."""
        return -(-size // self.stride)

    def tap_offset(self, tap: int) -> tuple[int, int]:
        """Row and column of a tap in x padded by `halo`, for the filter at position (0, 0)."""
        row, column = divmod(tap, self.kernel_size)
        return row * self.dilation, column * self.dilation


def accumulator_dtype(*arrays: Array | None) -> jnp.dtype:
    """The dtype in which filters are combined and sums are kept: float64 where any input is float64, else float32."""
    wide = any(array is not None and array.dtype == jnp.float64 for array in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)
