"""dx: the cotangent of x at a stride of 1, the forward kernel of the transposed filter.

    dx[q] = Σ over the taps of dy[p] · filter[p, t], where p = q - t

A block streams down the rows of dy. The taps are in the opposite order, and a filter is that of the position that is
read: it arrives with its row of dy, and is used for no later one.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from pallas_kernels.ops import normalization
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.mosaic_gpu import blocks, selection
from pallas_kernels.ops.mosaic_gpu.blocks import Block
from pallas_kernels.ops.mosaic_gpu.fwd import Forward
from pallas_kernels.ops.mosaic_gpu.program import Channel, Program


def input_cotangent(
    dy: Array,
    spatial: Array | None,
    channel: Array | None,
    shape: ArgShape,
    dtype: Any,
    *,
    block: Block | None = None,
    interpret: Any = None,
) -> Array:
    """dx [B, H, W, C] of a call of this shape. The arguments are those of `dfilters.filter_cotangents`."""
    transposed = blocks.transposed(shape, dy.dtype.itemsize)
    sizes = [array.dtype.itemsize for array in (dy, spatial, channel) if array is not None]
    block = block or selection.choose_block(transposed, "dx", [*sizes, jnp.dtype(dtype).itemsize])
    if block is None:
        raise ValueError(f"No block of the Mosaic kernel fits {shape}: see `why_not`.")
    statistics = None
    if spatial is not None and shape.spec.normalize:
        statistics = jnp.stack(normalization.statistics(spatial.astype(jnp.float32), shape.spec), axis=-1)
    kernel = Transposed(transposed, block, jnp.dtype(dtype), interpret)
    return kernel(dy, spatial, statistics, channel)


class Transposed(Forward):
    """The kernel of a call. Its `shape` is that of the transposed call: "x" is dy, and its positions are pixels."""

    name = "dx"

    def __init__(self, shape: ArgShape, block: Block, dtype: jnp.dtype, interpret: Any):
        super().__init__(shape, block, dtype, interpret)
        self.program = _Program
        self.filter_grid = shape.height, shape.width


class _Program(Program):
    """One block of the kernel."""

    def filter_row(self, step: Array) -> Array:
        """That of dy which arrives with it."""
        return self.first_row + step * self.kernel.row_step - self.shape.spec.origin[0]

    def channel_filter(self) -> Channel:
        """By the tap of the transposed filter."""
        channel = super().channel_filter()
        return lambda tap: channel(self.shape.spec.taps - 1 - tap)

    def filters(self, step: Array) -> Callable[[int, int, int], Array]:
        """Those of the row of dy of this step; zero where there is none, whatever the memory holds there."""
        spec, of_row = self.shape.spec, super().filters(step)
        row, first = self.filter_row(step), self.first_column - self.shape.spec.origin[1]
        exists = jnp.logical_and(row >= 0, row < self.shape.height)
        end = jnp.where(exists, self.shape.width, 0)

        @functools.cache
        def inside(column: int) -> Array:
            columns = self.layouts.threads * self.block.columns + (first + column)
            return jnp.logical_and(columns >= 0, columns < end)

        def read(age: int, q: int, tap: int) -> Array:
            del age  # of the pixels that read this row
            column = q + spec.dilation[1] * (tap % spec.kernel_size[1])
            return jnp.where(inside(column), of_row(0, column, spec.taps - 1 - tap), 0.0)

        return read
