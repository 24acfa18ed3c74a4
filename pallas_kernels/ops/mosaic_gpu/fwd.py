"""The forward kernel: copies run ahead of the arithmetic, so that it waits for nothing but bandwidth.

A block of one warpgroup streams down the rows of x. Each step waits for the rows that were asked for `ahead` steps ago,
multiplies each value for all positions and taps that read it, writes the row of positions that is complete, and asks
for the next rows. Copies are bulk tensor copies: they take no registers, and outside of x they give zeros.

A thread has 8 or 16 bytes of neighbouring channels and up to four neighbouring positions. Its sums are those of the
positions, along H, that read the same row of x; the filter of its channels stays in registers where it fits.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import compat
from pallas_kernels.ops import normalization
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.mosaic_gpu import blocks, layouts, selection
from pallas_kernels.ops.mosaic_gpu.blocks import Block, Kernel
from pallas_kernels.ops.mosaic_gpu.copies import COPY_BYTES, FilterRows
from pallas_kernels.ops.mosaic_gpu.layouts import Layouts
from pallas_kernels.ops.mosaic_gpu.program import STORED, Program
from pallas_kernels.ops.spec import FilterSpec


def forward(
    x: Array,
    spatial: Array | None,
    channel: Array | None,
    spec: FilterSpec,
    dtype: Any = None,
    *,
    block: Block | None = None,
    interpret: Any = None,
) -> Array:
    """y by the forward kernel, as in `implementation.Implementation`. `block` defaults to `choose_block`'s."""
    shape = ArgShape.of(x, spatial, channel, spec)
    dtype = jnp.dtype(dtype or x.dtype)
    sizes = [array.dtype.itemsize for array in (x, spatial, channel) if array is not None]
    block = block or selection.choose_block(shape, "fwd", [*sizes, dtype.itemsize])
    if block is None:
        raise ValueError(f"No block of the Mosaic kernel fits {shape}: see `why_not`.")
    kernel = Forward(shape, block, dtype, interpret)
    statistics = None
    if spatial is not None and spec.normalize:
        statistics = jnp.stack(normalization.statistics(spatial.astype(jnp.float32), spec), axis=-1)
    return kernel(x, spatial, statistics, channel)


class Forward:
    """The kernel of a call.

    Args:
      shape: of the call.
      block: of the kernel.
      dtype: of y.
      interpret: parameters of the interpreter, or None.
    """

    name: Kernel = "fwd"
    program = Program

    def __init__(self, shape: ArgShape, block: Block, dtype: jnp.dtype, interpret: Any):
        self.shape, self.block, self.dtype, self.interpret = shape, block, dtype, interpret
        self.stream = blocks.stream(shape)
        self.layouts = Layouts(block)
        self.last_column = blocks.last_column(shape, block)
        self.tiles = -(-shape.positions[1] // block.width)
        self.row_step = shape.spec.dilation[0]
        self.strips = blocks.num_strips(shape, block)
        self.steps = block.rows + self.stream.oldest
        self.kept = blocks.kept_rows(shape, block, self.name)
        self.filter_grid = shape.positions

    def __call__(self, x: Array, spatial: Array | None, statistics: Array | None, channel: Array | None) -> Array:
        shape, block = self.shape, self.block
        arrays, slots, copies = self.operands(x, spatial, statistics, channel)
        rows, width = shape.positions
        out = jax.ShapeDtypeStruct((shape.batch, rows, width, *self.parts), self.dtype)
        present = [array is not None for array in (spatial, statistics, channel)]

        def body(*refs):
            self._body(*refs, present=present)

        body.__name__ = f"dynamic_filter_{self.name}"  # the profiler shows it
        y = plgpu.kernel(
            body,
            out_type=compat.kernel_output(out, x),
            scratch_types=[
                *slots,
                plgpu.SMEM((STORED, block.covered, *self.layouts.channels), self.dtype),
                plgpu.Barrier(num_arrivals=copies, num_barriers=block.ahead),
                plgpu.Barrier(num_arrivals=1),
            ],
            grid=(blocks.num_blocks(shape, block),),
            grid_names=("program",),
            interpret=self.interpret,
            compiler_params=layouts.compiler_params(),
        )(*arrays)
        return y.reshape(shape.batch, rows, width, shape.channels)

    @property
    def parts(self) -> tuple[int, int]:
        """The axes that the channels of an array are split into."""
        return self.shape.channels // self.layouts.part, self.layouts.part

    def operands(
        self, x: Array, spatial: Array | None, statistics: Array | None, channel: Array | None
    ) -> tuple[list[Array], list[Any], int]:
        """The arrays that are copied to shared memory, their slots there, and the copies of a step."""
        shape, block = self.shape, self.block
        self.spatial = None if spatial is None else self._rows(shape.spec.taps, spatial.dtype)
        self.statistics = None if statistics is None else self._rows(2, statistics.dtype)
        self.origin = shape.spec.origin
        if self.interpret is not None:  # the interpreter knows no negative offset
            x = jnp.pad(x, [(0, 0), *((before, 0) for before in self.origin), (0, 0)])
            self.origin = (0, 0)
        if x.shape[1] == 1:  # a copy would leave out an axis of one row, with its offset
            x = jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)))
        arrays: list[Array] = [x.reshape(*x.shape[:3], *self.parts)]
        columns = blocks.loaded_columns(shape, block)
        slots: list[Any] = [plgpu.SMEM((block.ahead, self.stream.rows, columns, *self.layouts.channels), x.dtype)]
        for rows, array in ((self.spatial, spatial), (self.statistics, statistics)):
            if rows is not None and array is not None:
                arrays.append(rows.of(array))
                slots.append(plgpu.SMEM(rows.slots(self.kept, block.beyond), array.dtype))
        if channel is not None:
            arrays.append(channel.reshape(*channel.shape[:1], shape.spec.taps, *self.parts))
            slots.append(plgpu.SMEM((self._channel_taps(channel), *self.layouts.channels), channel.dtype))
        copies = 1 + sum(rows.copies for rows in (self.spatial, self.statistics) if rows is not None)
        return arrays, slots, copies

    def _body(self, *refs: Any, present: list[bool]) -> None:
        count = 1 + sum(present)
        inputs, y_ref, slots = iter(refs[1:count]), refs[count], iter(refs[count + 2 : 2 * count + 1])
        filters = [(next(inputs), next(slots)) if there else None for there in present]
        y_slots, *barriers = refs[2 * count + 1 :]
        self.program(self, (refs[0], refs[count + 1]), filters, (y_ref, y_slots), (barriers[0], barriers[1])).run({})

    def _rows(self, taps: int, dtype: Any) -> FilterRows:
        interpreted, size = self.interpret is not None, jnp.dtype(dtype).itemsize
        return blocks.filter_rows(self.shape, self.block, self.name, taps, size, interpreted=interpreted)

    def _channel_taps(self, channel: Array) -> int:
        """The taps of the channel filter that are copied: rows of zeros make their bytes a multiple."""
        taps, row = self.shape.spec.taps, self.block.channels * channel.dtype.itemsize
        while taps * row % COPY_BYTES:
            taps += 1
        return taps
