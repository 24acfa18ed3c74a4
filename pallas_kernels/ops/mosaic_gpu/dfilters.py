"""dfilters: the cotangents of both filters, streamed as the forward kernel.

    ds[p, t] = Σ over the channels of a group of dy[p] · x[p + t] · c[t]
    dc[t]    = Σ over the positions of a sample of dy[p] · x[p + t] · s[p, t]

Each step multiplies the rows of x that arrived with the dy of all positions that read them. A thread keeps the channel
filter and the sums of its cotangent in registers; the lanes of a position add up its ds, which waits in shared memory
until the last rows have been read.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import compat
from pallas_kernels.ops import normalization
from pallas_kernels.ops.config import LOAD_BYTES, ArgShape
from pallas_kernels.ops.mosaic_gpu import blocks, layouts, selection
from pallas_kernels.ops.mosaic_gpu.blocks import Block
from pallas_kernels.ops.mosaic_gpu.copies import COPY_BYTES
from pallas_kernels.ops.mosaic_gpu.fwd import Forward
from pallas_kernels.ops.mosaic_gpu.program import STORED, Channel, Program, Sums
from pallas_kernels.ops.spec import FilterSpec


def filter_cotangents(
    x: Array,
    dy: Array,
    spatial: Array,
    channel: Array,
    spec: FilterSpec,
    dtype: Any = jnp.float32,
    *,
    block: Block | None = None,
    interpret: Any = None,
) -> tuple[Array, Array]:
    """The cotangents of the spatial filter that is used, [B, Ho, Wo, 1, G, T], and of the channel filter [B, 1, T, C].

    Args:
      x: as in `implementation.Implementation`.
      dy: the cotangent of y.
      spatial: as given; `spec` may normalise it.
      channel: as in `implementation.Implementation`.
      spec: the options of the operator; "mul".
      dtype: of the first result, where it is not a sum of several. The second is float32.
      block: by default `selection.choose_block`'s.
      interpret: parameters of the interpreter.
    """
    shape = ArgShape.of(x, spatial, channel, spec)
    sizes = [array.dtype.itemsize for array in (x, dy, spatial, channel)]
    block = block or selection.choose_block(shape, "dfilters", sizes)
    if block is None:
        raise ValueError(f"No block of the Mosaic kernel fits {shape}: see `why_not`.")
    statistics = None
    if spec.normalize:
        statistics = jnp.stack(normalization.statistics(spatial.astype(jnp.float32), spec), axis=-1)
    whole = block.channels >= shape.group_channels
    narrow = block.width * jnp.dtype(dtype).itemsize % LOAD_BYTES  # to be copied
    kernel = Cotangents(shape, block, jnp.dtype(dtype if whole and not narrow else jnp.float32), interpret)
    ds, dc = kernel.run(x, dy, spatial, statistics, channel)
    ds, dc = ds[0] if whole else ds.sum(0), dc.sum(1)
    if spec.factor != 1:
        ds, dc = (ds * spec.factor).astype(ds.dtype), dc * spec.factor
    return ds.reshape(spatial.shape), dc.reshape(channel.shape)


class Cotangents(Forward):
    """The kernel of a call. Its `dtype` is that of ds."""

    name = "dfilters"

    def run(self, x: Array, dy: Array, spatial: Array, statistics: Array | None, channel: Array) -> tuple[Array, Array]:
        """ds [N, B, Ho, Wo, G, T], to be added over N, and dc [B, N, T, C] likewise, float32."""
        shape, block = self.shape, self.block
        inputs, slots, copies = self.operands(x, spatial, statistics, channel)
        if dy.shape[1] == 1:  # as of x
            dy = jnp.pad(dy, ((0, 0), (0, 1), (0, 0), (0, 0)))
        inputs.append(dy.reshape(*dy.shape[:3], *self.parts))
        rows, columns = shape.positions
        slots.append(plgpu.SMEM((self.kept, block.width, *self.layouts.channels), dy.dtype))
        padded = shape.spec.taps  # so that the rows in shared memory start where copies may
        while padded * block.width * self.dtype.itemsize % COPY_BYTES:
            padded += 1
        self.rows_beyond = rows % (block.rows * self.row_step) != 0
        self.taps_from_beyond = self._taps_from_beyond()
        self.waiting = self.stream.oldest + 1 + STORED
        self.parts_of_group = max(1, shape.group_channels // block.channels)
        of_sample = self.strips * self.tiles
        # With the taps before the positions: threads side by side write neighbouring values.
        lines = self.parts_of_group * shape.batch * rows * shape.groups
        out = (
            jax.ShapeDtypeStruct((lines, shape.spec.taps, self.tiles * block.width), self.dtype),
            jax.ShapeDtypeStruct((shape.batch, of_sample, shape.spec.taps, *self.parts), jnp.float32),
        )
        present = [True, statistics is not None, True]

        def dynamic_filter_dfilters(*refs):  # the profiler shows the name
            count = len(inputs)
            x_ref, *rest, dy_ref = refs[:count]
            ds_ref, dc_ref, x_slots, *rest_slots = refs[count:]
            dy_slots, ds_slots, arrived, ready = rest_slots[count - 2 :]
            given = iter(zip(rest, rest_slots, strict=False))
            filters = [next(given) if there else None for there in present]
            program = _Program(self, (x_ref, x_slots), filters, (ds_ref, ds_slots), (arrived, ready))
            program.collect((dy_ref, dy_slots), dc_ref)

        ds, dc = plgpu.kernel(
            dynamic_filter_dfilters,
            out_type=tuple(compat.kernel_output(struct, x) for struct in out),
            scratch_types=[
                *slots,
                plgpu.SMEM((self.waiting, padded, block.width), self.dtype),
                plgpu.Barrier(num_arrivals=copies + 1, num_barriers=block.ahead),
                plgpu.Barrier(num_arrivals=1),
            ],
            grid=(blocks.num_blocks(shape, block),),
            grid_names=("program",),
            interpret=self.interpret,
            compiler_params=layouts.compiler_params(),
        )(*inputs)
        ds = ds[..., :columns].reshape(self.parts_of_group, shape.batch, rows, shape.groups, shape.spec.taps, columns)
        return jnp.moveaxis(ds, -1, 3), dc.reshape(*dc.shape[:3], shape.channels)

    def _taps_from_beyond(self) -> list[int]:
        """The taps by which positions beyond the last ones along an axis would read pixels of the image."""
        shape, spec = self.shape, self.shape.spec
        first = [
            stride * length - before
            for stride, length, before in zip(spec.stride, shape.positions, spec.origin, strict=True)
        ]
        return [
            tap
            for tap in range(spec.taps)
            for down, right in [spec.tap_offset(tap)]
            if (self.rows_beyond and first[0] + down < shape.height) or first[1] + right < shape.width
        ]


class _Program(Program):
    """One block of the kernel."""

    def collect(self, dy: tuple[Any, Any], dc_ref: Any) -> None:
        """Streams down the rows, and writes this block's sums of dc."""
        self.dy_ref, self.dy_slots = dy
        self.ds_slots = self.y_slots
        zero = plgpu.layout_cast(jnp.zeros(self.layouts.shape, jnp.float32), self.layouts.full)
        chunks = range(self.block.chunks)
        totals = self.run({(-1 - chunk, tap): zero for chunk in chunks for tap in range(self.shape.spec.taps)})
        place = self.strip * self.kernel.tiles + self.tile
        for (key, tap), total in totals.items():
            parts = pl.ds(self.part * len(chunks) - 1 - key, 1)
            dc_ref[self.sample, place, tap, parts] = total.sum(0)

    def start(self, step: Array) -> None:
        """As in the forward kernel, and for the row of dy that begins with a step."""
        super().start(step)
        row = self.first_row + step * self.kernel.row_step
        columns = pl.ds(self.first_column, self.block.width)
        slot = lax.rem(step, self.kernel.kept)
        barrier = self.arrived.at[lax.rem(step, self.block.ahead)]
        window = self.dy_ref.at[self.sample, row, columns, self.all_parts]
        plgpu.copy_gmem_to_smem(window, self.dy_slots.at[slot], barrier)

    def visit(self, step: Array, sums: Sums, ages: range, channel: Channel) -> Sums:
        """Multiplies the rows of x of a step with dy, for both filters' cotangents."""
        plgpu.barrier_wait(self.arrived.at[lax.rem(step, self.block.ahead)])
        sums, filters, kept, waiting = dict(sums), self.filters(step), self.kernel.kept, self.kernel.waiting
        # The slot of a row that begins was sent before the last ones; where none was sent any more, all are waited for.
        plgpu.wait_smem_to_gmem(STORED, wait_read_only=True)
        outside = self.first_row + step * self.kernel.row_step >= self.shape.positions[0]
        pl.when(outside)(lambda: plgpu.wait_smem_to_gmem(0, wait_read_only=True))
        dys = {
            (age, q): self.read.columns(self.dy_slots, (lax.rem(step + (kept - age), kept),), q, self.block.columns)
            for age, q in itertools.product(ages, range(self.block.columns))
        }
        exist = functools.cache(functools.partial(self.exist, step))
        puts: list[Callable[[], None]] = []
        for xs, readers in self.pixels(step, ages):
            used = [filters(*reader) for reader in readers]
            for put in puts:  # after these loads, which could not go before it
                put()
            puts = []
            only = functools.cache(lambda *at, xs=xs: self.only(xs, exist(*at)))
            for (age, q, tap), s in zip(readers, used, strict=True):
                at = age if self.kernel.rows_beyond else 0, q
                [s] = self.only([s], exist(*at))
                s, total = self.layouts.over_channels(s), None
                safe = only(*at) if tap in self.kernel.taps_from_beyond else xs
                for chunk, (x, dy) in enumerate(zip(safe, dys[age, q], strict=True)):
                    product, factor = x * dy, channel(tap, chunk)
                    assert factor is not None
                    sums[-1 - chunk, tap] = sums[-1 - chunk, tap] + product * s
                    total = product * factor if total is None else total + product * factor
                assert total is not None
                slot = lax.rem(step + (waiting - age), waiting)
                puts.append(functools.partial(self.read.put, self.ds_slots, slot, q, tap, total.sum(2).sum(1)))
        for put in puts:
            put()
        oldest = self.stream.oldest
        self.release(step, self.first_row + (step - oldest) * self.kernel.row_step if oldest in ages else None)
        return sums

    def exist(self, step: Array, age: int, q: int) -> Array | None:
        """Whether the positions of an age do, for each thread; None if all do."""
        rows, columns = self.shape.positions
        if columns % self.block.width == 0 and not self.kernel.rows_beyond:
            return None
        left = columns - self.first_column - q  # from the first thread's position on
        if self.kernel.rows_beyond:
            row = self.first_row + (step - age) * self.kernel.row_step
            left = jnp.where(row < rows, left, 0)
        return self.layouts.threads * self.block.columns < left

    def only(self, values: list[Array], inside: Array | None) -> list[Array]:
        """Zero for positions that do not exist: their dy is zero, but a pixel or what memory holds may be infinite."""
        if inside is None:
            return values
        condition = inside
        if values[0].ndim > inside.ndim:
            condition = self.layouts.over_channels(inside.astype(jnp.float32)) > 0
        return [jnp.where(condition, value, 0.0) for value in values]

    def send(self, step: Array, row: Array) -> None:
        """Copies a row of ds from shared memory."""
        slot = lax.rem(step + (self.kernel.waiting - self.stream.oldest), self.kernel.waiting)
        line = lax.rem(self.part, self.kernel.parts_of_group) * self.shape.batch + self.sample
        line = (line * self.shape.positions[0] + row) * self.shape.groups + self.group
        target = self.y_ref.at[line, :, pl.ds(self.first_column, self.block.width)]
        plgpu.copy_smem_to_gmem(self.ds_slots.at[slot, pl.ds(0, self.shape.spec.taps)], target)
