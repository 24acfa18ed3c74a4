"""What a block of the forward kernel does."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.ops.mosaic_gpu import blocks
from pallas_kernels.ops.mosaic_gpu.copies import FilterRows
from pallas_kernels.ops.mosaic_gpu.layouts import Reader

STORED = 2  # rows of y on their way

Slots = tuple[Any, Any]
"""An array in memory, and its slots in shared memory."""

Sums = dict[tuple[int, int], Array]
"""By age of the position, and by its number among the thread's."""


Channel = Callable[..., Array | None]
"""The channel filter by the tap and the chunk."""


class _Ring(NamedTuple):
    """Filters of the last rows of positions, in shared memory."""

    rows: FilterRows
    source: Any
    slots: Any


class Program:
    """One block of the kernel.

    Args:
      kernel: that it is a part of.
      x: x and its slots in shared memory.
      filters: as x: the spatial ones, their statistics and the channel ones.
      y: y and its slots.
      barriers: of the arrival of each step's rows, and of the channel filter.
    """

    def __init__(self, kernel: Any, x: Slots, filters: Sequence[Slots | None], y: Slots, barriers: Slots):
        self.kernel, self.shape, self.block, self.stream = kernel, kernel.shape, kernel.block, kernel.stream
        self.x_ref, self.x_slots = x
        *rings, self.channel = filters
        self.spatial, self.statistics = (
            None if rows is None or refs is None else _Ring(rows, *refs)
            for rows, refs in zip((kernel.spatial, kernel.statistics), rings, strict=True)
        )
        self.y_ref, self.y_slots = y
        self.arrived, self.ready = barriers
        self.layouts, self.read = kernel.layouts, Reader(kernel.layouts, kernel.interpret is not None)
        block, shape = self.block, self.shape
        number = lax.axis_index("program")
        number, part = _divmod(number, shape.channels // block.channels)
        number, tile = _divmod(number, kernel.tiles)
        self.sample, strip = _divmod(number, kernel.strips)
        self.strip = strip
        strip, residue = _divmod(strip, kernel.row_step)
        self.tile, self.part = tile, part
        self.first_row = strip * (block.rows * kernel.row_step) + residue
        self.first_column = tile * block.width
        self.group = part * block.channels // shape.group_channels
        groups, _ = self.layouts.channels
        self.all_parts = pl.ds(part * groups, groups)

    def run(self, sums: Sums) -> Sums:
        """Streams down the rows, from these sums on."""
        block, oldest = self.block, self.stream.oldest
        if self.channel is not None:
            source, target = self.channel
            taps = target.shape[0]
            window = source.at[self.sample, pl.ds(jnp.int32(0), taps), self.all_parts]
            plgpu.copy_gmem_to_smem(window, target, self.ready)
        for step in range(min(block.ahead, self.kernel.steps)):
            self.start(jnp.int32(step))
        if self.channel is not None:
            plgpu.barrier_wait(self.ready)
        channel = self.channel_filter()
        first_full, last_full = min(oldest, block.rows), block.rows
        for step in range(first_full):
            sums = self.visit(jnp.int32(step), sums, range(step + 1), channel)
        if last_full > first_full:
            keys = [*sums]

            def middle(step: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
                after = self.visit(step, dict(zip(keys, carry, strict=True)), range(oldest + 1), channel)
                return tuple(after[key] for key in keys)

            carry = lax.fori_loop(first_full, last_full, middle, tuple(sums.values()))
            sums = dict(zip(keys, carry, strict=True))
        for step in range(last_full, self.kernel.steps):
            ages = range(step - block.rows + 1, min(step, oldest) + 1)
            sums = self.visit(jnp.int32(step), sums, ages, channel)
        plgpu.wait_smem_to_gmem(0)
        return sums

    def visit(self, step: Array, sums: Sums, ages: range, channel: Channel) -> Sums:
        """Multiplies the rows of x of a step for the positions of these ages, and writes the oldest."""
        plgpu.barrier_wait(self.arrived.at[lax.rem(step, self.block.ahead)])
        sums = self.add(step, dict(sums), ages, channel)
        oldest = self.stream.oldest
        finished = oldest in ages
        row = self.first_row + (step - oldest) * self.kernel.row_step
        totals = [sums.pop((oldest, q)) for q in range(self.block.columns)] if finished else []
        if finished:  # nothing is written that is not sent: only the copies before the last one are waited for
            pl.when(row < self.shape.positions[0])(lambda: self.store(step, totals))
        self.release(step, row if finished else None)
        return {(age + 1, q): total for (age, q), total in sums.items()}

    def release(self, step: Array, row: Array | None) -> None:
        """Sends the row of positions that is complete, if there is one, and asks for the rows of a later step."""
        plgpu.commit_smem()  # all threads have read the rows of this step, and written those of the result
        if row is not None:
            pl.when(row < self.shape.positions[0])(lambda: self.send(step, row))

        @pl.when(step + self.block.ahead < self.kernel.steps)
        def _():
            self.start(step + self.block.ahead)

    def start(self, step: Array) -> None:
        """Asks for the rows of x of a step, and for the filters of the row of positions that begins with it."""
        spec, kernel = self.shape.spec, self.kernel
        (top, left), slot = kernel.origin, lax.rem(step, self.block.ahead)
        row = spec.stride[0] * (self.first_row + step * kernel.row_step) - top
        window = self.x_ref.at[
            self.sample,
            pl.ds(row, self.stream.rows),
            pl.ds(self.first_column * spec.stride[1] - left, self.x_slots.shape[2]),
            self.all_parts,
        ]
        barrier = self.arrived.at[slot]
        plgpu.copy_gmem_to_smem(window, self.x_slots.at[slot], barrier)
        rows, columns = kernel.filter_grid
        row = jnp.minimum(jnp.maximum(self.filter_row(step), 0), rows - 1)  # the first and the last again are not used
        pixel = (self.sample * rows + row) * columns + self.first_column
        kept = lax.rem(step, kernel.kept)
        for ring in (self.spatial, self.statistics):
            if ring is not None:
                ring.rows.start(ring.source, ring.rows.slot(ring.slots, kept), barrier, pixel, self.group)

    def filter_row(self, step: Array) -> Array:
        """The row of the filters that arrive with the rows of x of a step: of the positions that begin then."""
        return self.first_row + step * self.kernel.row_step

    def add(self, step: Array, sums: Sums, ages: range, channel: Channel) -> Sums:
        """Adds the products of the rows of x of a step."""
        filters = self.filters(step)
        for [x], readers in self.pixels(step, ages):
            for age, q, tap in readers:
                term = x * self.filter(filters, age, q, tap, channel)
                sums[age, q] = sums[age, q] + term if (age, q) in sums else term
        return sums

    def pixels(self, step: Array, ages: range) -> Iterator[tuple[list[Array], list[tuple[int, int, int]]]]:
        """The pixels of x of a step, each with its chunks and the positions that read it: age, number and tap."""
        spec, block = self.shape.spec, self.block
        slot = lax.rem(step, block.ahead)
        for row, column in itertools.product(range(self.stream.rows), range(self.kernel.last_column + 1)):
            readers = [
                (age, q, i * spec.kernel_size[1] + j)
                for age in ages
                if (i := self.stream.tap(age, row)) is not None
                for q, j in itertools.product(range(block.columns), range(spec.kernel_size[1]))
                if spec.stride[1] * q + spec.dilation[1] * j == column
            ]
            if readers:
                yield self.read.columns(self.x_slots, (slot, row), column, spec.stride[1] * block.columns), readers

    def filter(self, filters: Callable[..., Array], age: int, q: int, tap: int, channel: Channel) -> Array:
        """The combined filter of a tap."""
        c = channel(tap)
        if self.spatial is None:
            assert c is not None
            return c
        s = self.layouts.over_channels(filters(age, q, tap))
        if c is None:
            return s
        return s * c if self.shape.spec.combine == "mul" else s + c

    def filters(self, step: Array) -> Callable[[int, int, int], Array]:
        """The normalised spatial filters at a step, [threads] or [threads, groups], by age, number and tap."""
        kept, spec = self.kernel.kept, self.shape.spec

        @functools.cache
        def statistics(age: int, q: int) -> list[Array]:
            slot = lax.rem(step + (kept - age), kept)
            return [self.value(self.statistics, slot, n, q) for n in range(2)]

        def read(age: int, q: int, tap: int) -> Array:
            s = self.value(self.spatial, lax.rem(step + (kept - age), kept), tap, q)
            if self.statistics is None:
                return s
            shift, factor = statistics(age, q)
            return (jnp.exp(s - shift) if spec.normalize == "softmax" else s - shift) * factor

        return read

    def value(self, ring: _Ring | None, slot: Array, tap: int, column: int) -> Array:
        """A value of each filter, of the thread's column of this number: [threads] or [threads, groups] as float32."""
        assert ring is not None
        group = self.group if ring.rows.whole else 0
        return self.read.filters(ring.slots, slot, ring.rows, self.block, tap, column, group)

    def channel_filter(self) -> Channel:
        """The channel filter by the tap and the chunk."""
        if self.channel is None:
            return lambda tap, chunk=0: None
        slots = self.channel[1]

        def load(tap: int, chunk: int = 0) -> Array:
            return self.layouts.over_positions(self.read.channels(slots, tap, chunk))

        taps, chunks = self.shape.spec.taps, self.block.chunks
        if taps > blocks.TAPS_IN_REGISTERS:
            return load
        loaded = {key: load(*key) for key in itertools.product(range(taps), range(chunks))}
        return lambda tap, chunk=0: loaded[tap, chunk]

    def store(self, step: Array, totals: list[Array]) -> None:
        """Writes a row of positions to shared memory."""
        plgpu.wait_smem_to_gmem(STORED - 1, wait_read_only=True)
        factor = self.shape.spec.factor
        values = [(total if factor == 1 else factor * total).astype(self.kernel.dtype) for total in totals]
        self.read.write(self.y_slots, lax.rem(step, STORED), values)

    def send(self, step: Array, row: Array) -> None:
        """Copies a row of positions from shared memory to y."""
        slot = lax.rem(step, STORED)

        def copy(width: int) -> None:
            target = self.y_ref.at[self.sample, row, pl.ds(self.first_column, width), self.all_parts]
            plgpu.copy_smem_to_gmem(self.y_slots.at[slot, pl.ds(0, width)], target)

        self.in_row(copy)

    def in_row(self, copy: Callable[[int], None]) -> None:
        """Copies as many positions as lie in the row: a contiguous copy would continue in the next one."""
        columns, width = self.shape.positions[1], self.block.width
        rest, last = columns % width, self.tile == self.kernel.tiles - 1
        if rest == 0:
            copy(width)
            return
        if columns > width:
            pl.when(jnp.logical_not(last))(lambda: copy(width))
        pl.when(last)(lambda: copy(rest))


def _divmod(number: Array, by: int) -> tuple[Array, Array]:
    return (lax.div(number, by), lax.rem(number, by)) if by > 1 else (number, jnp.int32(0))
