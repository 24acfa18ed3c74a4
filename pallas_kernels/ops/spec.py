"""What a dynamic filter computes: the static part of the operator and its shape rules."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jax import Array

Combine = Literal["mul", "add"]


@dataclasses.dataclass(frozen=True)
class FilterSpec:
    """Everything that may change the answer, apart from the arrays.

    One form serves both public operators: `dynamic_filter` has ``scale=1`` and `dynamic_upsample` has ``stride=1``.
    Every implementation takes

        x        [B, H, W, C]
        spatial  [B, Ho, Wo, S², G, T] or None
        channel  [B, S², T, C] or None          (not both None)

    and gives ``y [B, S·Ho, S·Wo, C]`` in the dtype of x.
    """

    kernel_size: int
    stride: int = 1
    scale: int = 1
    dilation: int = 1
    combine: Combine = "mul"

    @property
    def taps(self) -> int:
        """T, the number of filter values per output."""
        return self.kernel_size**2

    @property
    def reach(self) -> int:
        """How many pixels the filter sees beyond its centre, and so how wide the zero border of x is."""
        return self.dilation * (self.kernel_size // 2)

    def grid_size(self, size: int) -> int:
        """Positions of the filter along a side of `size` pixels (before upsampling): ceil(size / stride)."""
        return -(-size // self.stride)

    def tap_offset(self, tap: int) -> tuple[int, int]:
        """Row and column of a tap in x padded by `reach`, for the filter at position (0, 0)."""
        row, column = divmod(tap, self.kernel_size)
        return row * self.dilation, column * self.dilation


def accumulator_dtype(*arrays: Array | None) -> jnp.dtype:
    """The dtype in which filters are combined and sums are kept: float64 where any input is float64, else float32."""
    wide = any(array is not None and array.dtype == jnp.float64 for array in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)
