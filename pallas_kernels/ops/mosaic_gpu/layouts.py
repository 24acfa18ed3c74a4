"""How the values of a block lie in the registers of a warpgroup, and how they are read from shared memory."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.mosaic.gpu import fragmented_array
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.ops.mosaic_gpu.blocks import LANES, WARPS, Block
from pallas_kernels.ops.mosaic_gpu.copies import FilterRows

_load: Any = plgpu.load  # its signature has changed


def compiler_params() -> plgpu.CompilerParams:
    """Of the kernels, which state their barriers themselves."""
    semantics = plgpu.LoweringSemantics.Lane
    return plgpu.CompilerParams(lowering_semantics=semantics, unsafe_no_auto_barriers=True)


@dataclasses.dataclass(frozen=True)
class Layouts:
    """Arrays [threads, groups, channels]: a thread has neighbouring channels of one place.

    The channels are those of a group in the block, or of a chunk of the only group there.

    Args:
      block: of the kernel.
    """

    block: Block

    @property
    def part(self) -> int:
        """Channels of an array."""
        return self.block.channels // self.block.groups // self.block.chunks

    @property
    def channels(self) -> tuple[int, int]:
        """In shared memory."""
        return self.block.groups * self.block.chunks, self.part

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.block.threads, self.block.groups, self.part

    @property
    def full(self) -> Any:
        threads, groups, part = self.shape
        of_warp = threads // WARPS
        assert of_warp * groups * part == LANES * self.block.vector
        tiling = fragmented_array.Tiling((self.shape, (of_warp, groups, part), (1, 1, self.block.vector)))
        layout = fragmented_array.TiledLayout(tiling, (-9,), (-6, -5, -4), -1, _check_canonical=False).canonicalize()
        return plgpu.Layout.TILED(layout.tiling, layout.warp_dims, layout.lane_dims, layout.vector_dim)

    def over_channels(self, filters: Array) -> Array:
        """[threads] or [threads, groups] for each channel."""
        return plgpu.layout_cast(lax.broadcast_in_dim(filters, self.shape, range(filters.ndim)), self.full)

    @property
    def of_filters(self) -> Any:
        """Of a value for each thread's filters, [threads] or [threads, groups] where the block has several."""
        return self.full.reduce(2) if self.block.groups > 1 else self.full.reduce((1, 2))

    @property
    def threads(self) -> Array:
        """The number of each thread side by side, for each value of its filters."""
        axes = 2 if self.block.groups > 1 else 1
        return plgpu.broadcasted_iota(jnp.int32, self.shape[:axes], 0, layout=self.of_filters)

    def over_positions(self, channels: Array) -> Array:
        """[groups, channels of a group] for each thread."""
        return plgpu.layout_cast(lax.broadcast_in_dim(channels, self.shape, (1, 2)), self.full)


@dataclasses.dataclass(frozen=True)
class Reader:
    """Loads from shared memory as float32, and stores.

    The interpreter knows no reshaped references: it reshapes values.

    Args:
      layouts: of the registers.
      interpreted: whether the interpreter runs.
    """

    layouts: Layouts
    interpreted: bool

    def columns(self, slots: Any, at: tuple[Any, ...], column: int, step: int) -> list[Array]:
        """The values of each thread from [columns, groups, channels], of each chunk: its column number `column`.

        Args:
          slots: [..., columns, groups or chunks, channels].
          at: the first indices.
          column: relative to the thread's first.
          step: columns from one thread to the next.
        """
        shape, (threads, groups, _) = slots.shape[len(at) :], self.layouts.shape
        steps, rest = divmod(column, step)
        return [
            self._read(slots.at[at], (shape[0] // step, step, *shape[1:]), index, self.layouts.full)
            for chunk in range(self.layouts.block.chunks)
            for index in [(pl.ds(steps, threads), rest, pl.ds(chunk * groups, groups))]
        ]

    def filters(
        self, slots: Any, slot: Array, rows: FilterRows, block: Block, tap: int, column: int, group: Any
    ) -> Array:
        """A value of each thread's filters: [threads], or [threads, groups] where the block has several.

        Args:
          slots: as `FilterRows.slots`.
          slot: the number of the row.
          rows: of the filters.
          block: of the kernel.
          tap: the number of the value.
          column: relative to the thread's first.
          group: the first group of the block in the row.
        """
        groups, taps, several = rows.groups, rows.taps, block.groups > 1
        steps, q = divmod(column + rows.lead - rows.before, block.columns)
        threads = steps + block.threads
        start, count = slot * rows.shape[0], threads * block.columns
        if self.interpreted:  # without the filters of the next row, which nobody uses: it may be on its way
            count = min(count, rows.width)
        of_threads = pl.ds(steps, block.threads) if steps else slice(None)
        layout = self.layouts.of_filters
        if rows.whole:
            ref = slots.at[pl.ds(start, count * groups * taps)]
            which: Any = pl.ds(0 if block.groups == groups else group, block.groups) if several else group
            if groups == 1:
                which = 0
            index = (of_threads, q, which, tap)
            return self._read(ref, (threads, block.columns, groups, taps), index, layout)
        ref = slots.at[pl.ds(start, count), pl.ds(0, block.groups * taps)]
        index = (of_threads, q, slice(None) if several else 0, tap)
        return self._read(ref, (threads, block.columns, block.groups, taps), index, layout)

    def channels(self, slots: Any, tap: int, chunk: int) -> Array:
        """[groups, channels] of a chunk."""
        groups = self.layouts.shape[1]
        window = slots.at[tap, pl.ds(chunk * groups, groups)]
        return _load(window, layout=self.layouts.full.reduce(0), optimized=False).astype(jnp.float32)

    def write(self, slots: Any, slot: Array, values: list[Array]) -> None:
        """Writes the positions of each thread to [positions, groups, channels]."""
        threads, channels = self.layouts.shape[0], self.layouts.channels
        if self.interpreted:
            slots[slot] = jnp.stack(values, 1).reshape(threads * len(values), *channels)
            return
        target = slots.at[slot].reshape(threads, len(values), *channels)
        for q, value in enumerate(values):
            target[:, q] = value

    def put(self, slots: Any, slot: Array, q: int, tap: int, values: Array) -> None:
        """Writes a value of each thread [threads] to [taps, positions]."""
        block, values = self.layouts.block, values.astype(slots.dtype)
        if self.interpreted:
            line = slots[slot, tap].reshape(block.threads, block.columns)
            slots[slot, tap] = line.at[:, q].set(values).reshape(block.width)
        else:
            slots.at[slot, tap].reshape(block.threads, block.columns)[:, q] = values

    def _read(self, ref: Any, shape: tuple[int, ...], index: tuple[Any, ...], layout: Any) -> Array:
        if self.interpreted:
            value = ref[...].reshape(-1)
            value = jnp.pad(value, (0, math.prod(shape) - value.size)).reshape(shape)
            for axis, entry in reversed(list(enumerate(index))):
                if isinstance(entry, pl.Slice):
                    value = lax.dynamic_slice_in_dim(value, entry.start, int(entry.size), axis)
                elif not isinstance(entry, slice):
                    value = lax.dynamic_index_in_dim(value, entry, axis, keepdims=False)
        else:
            value = _load(ref.reshape(*shape).at[index], layout=layout, optimized=False)
        return value.astype(jnp.float32)
