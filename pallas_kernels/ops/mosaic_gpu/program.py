"""What a block of the forward kernel does."""

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

    def visit(self, step: Array, sums: Sums, ages: range, channel: Callable[[int], Array | None]) -> Sums:
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
        rows, columns = self.shape.positions
        position = jnp.minimum(self.first_row + step * kernel.row_step, rows - 1)  # the last one again is not used
        pixel = (self.sample * rows + position) * columns + self.first_column
        kept = lax.rem(step, self.block.ahead + self.stream.oldest)
        for ring in (self.spatial, self.statistics):
            if ring is not None:
                ring.rows.start(ring.source, ring.slots.at[kept], barrier, pixel, self.group)

    def add(self, step: Array, sums: Sums, ages: range, channel: Callable[[int], Array | None]) -> Sums:
        """Adds the products of the rows of x of a step."""
        kept = self.filter_slots(step, ages)
        normalizations = {key: self.normalization(kept[key[0]], key[1]) for key in self.positions(ages)}
        for x, age, q, tap in self.products(step, ages):
            term = x * self.filter(kept[age], normalizations[age, q], tap, q, channel)
            sums[age, q] = sums[age, q] + term if (age, q) in sums else term
        return sums

    def positions(self, ages: range) -> list[tuple[int, int]]:
        """Of a thread, by age and number."""
        return list(itertools.product(ages, range(self.block.columns)))

    def filter_slots(self, step: Array, ages: range) -> dict[int, Array]:
        """Of the rows of positions of these ages."""
        kept = self.block.ahead + self.stream.oldest
        return {age: lax.rem(step + (kept - age), kept) for age in ages}

    def products(self, step: Array, ages: range) -> Iterator[tuple[Array, int, int, int]]:
        """Each value of x with the age and number of a position that reads it, and the tap by which it does."""
        spec, block = self.shape.spec, self.block
        slot = lax.rem(step, block.ahead)
        for row, column in itertools.product(range(self.stream.rows), range(self.kernel.last_column + 1)):
            readers = [
                (q, tap)
                for q, tap in itertools.product(range(block.columns), range(spec.kernel_size[1]))
                if spec.stride[1] * q + spec.dilation[1] * tap == column
            ]
            taps = [(age, tap) for age in ages if (tap := self.stream.tap(age, row)) is not None]
            if not readers or not taps:
                continue
            x = self.read.columns(self.x_slots, (slot, row), column, spec.stride[1] * block.columns)
            for (age, i), (q, j) in itertools.product(taps, readers):
                yield x, age, q, i * spec.kernel_size[1] + j

    def filter(self, slot: Array, statistics: Any, tap: int, q: int, channel: Callable[[int], Array | None]) -> Array:
        """The combined filter of a tap."""
        c = channel(tap)
        if self.spatial is None:
            assert c is not None
            return c
        s = self.layouts.over_channels(self.spatial_filter(slot, statistics, tap, q))
        if c is None:
            return s
        return s * c if self.shape.spec.combine == "mul" else s + c

    def spatial_filter(self, slot: Array, statistics: Any, tap: int, q: int) -> Array:
        """The normalised spatial filter of a tap: [threads] or [threads, groups]."""
        assert self.spatial is not None
        s = self.value(self.spatial, slot, tap, q)
        if statistics is not None:
            shift, factor = statistics
            s = s - shift
            s = (jnp.exp(s) if self.shape.spec.normalize == "softmax" else s) * factor
        return s

    def normalization(self, slot: Array, q: int) -> tuple[Array, Array] | None:
        """The statistics of a filter."""
        if self.statistics is None:
            return None
        shift, factor = (self.value(self.statistics, slot, n, q) for n in range(2))
        return shift, factor

    def value(self, ring: _Ring, slot: Array, tap: int, q: int) -> Array:
        """A value of each filter: [threads] or [threads, groups] as float32."""
        group = self.group if ring.rows.whole else 0
        return self.read.filters(ring.slots, slot, ring.rows, self.block, tap, q, group)

    def channel_filter(self) -> Callable[[int], Array | None]:
        """The channel filter by the tap."""
        if self.channel is None:
            return lambda _: None
        slots = self.channel[1]

        def load(tap: int) -> Array:
            return self.layouts.over_positions(self.read.channels(slots, tap))

        taps = self.shape.spec.taps
        if taps > blocks.TAPS_IN_REGISTERS:
            return load
        return [load(tap) for tap in range(taps)].__getitem__

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
        """Copies as many positions as lie in the row: a contiguous copy would go on in the next one."""
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
