"""Asynchronous copies of a row of filters to shared memory, by the fastest kind that its addresses allow."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.ops.config import LOAD_BYTES

COPY_BYTES = 128  # of a copy to shared memory: a multiple of these
EVEN = 4  # the number of neighbouring filters that a copy of several axes brings: a multiple
MOST_COPIED = 256  # pixels, channels or values of a copy along an axis


@dataclasses.dataclass(frozen=True)
class FilterRows:
    """Rows of neighbouring filters of a block: of an array [pixels, groups, taps], some of its groups.

    Rows whose addresses are multiples of 16 bytes take one copy of any size. Else those whose pixels are take one
    copy of two axes, and others take copies of at most 256 values.

    Args:
      taps: values of a filter.
      groups: of the array.
      block_groups: of the block.
      columns: filters that are used of a row.
      before: how many of them lie before the block's first position.
      step: positions from one block to the next; 0 where there is no next.
      row: filters from one row of the image to the next.
      itemsize: bytes of a value.
      interpreted: whether the interpreter copies: it knows no negative offset.
    """

    taps: int
    groups: int
    block_groups: int
    columns: int
    before: int
    step: int
    row: int
    itemsize: int
    interpreted: bool = False

    @property
    def lead(self) -> int:
        """Filters that are copied before the block's first position: to an address that a copy may have."""
        lead = self.before
        while self._bulk and lead * self._pixel % LOAD_BYTES:
            lead += 1
        return lead

    @property
    def width(self) -> int:
        """Filters that are copied of a row: with several axes so many that they fill `COPY_BYTES`."""
        width = self.columns + self.lead - self.before
        return width if self.whole else -(-width // EVEN) * EVEN

    @property
    def whole(self) -> bool:
        """Whether rows are copied with all of their groups."""
        pixel = self.groups * self.taps
        apart = self._pixel % LOAD_BYTES == 0 and self._neighbours <= min(pixel, MOST_COPIED)
        return self.block_groups == self.groups or not apart

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row in shared memory."""
        if not self.whole:
            return self.width, self._neighbours
        before = self._rounded(self.lead * self.groups * self.taps) if self._bulk else 0
        return (sum(count for _, count in self.parts) + before,)

    def slots(self, number: int, more: int) -> tuple[int, ...]:
        """So many rows, one behind the other, with so many filters behind the last one that are read but not used."""
        rows, *values = self.shape
        behind = more if values else self._rounded(more * self.groups * self.taps)
        return number * rows + behind, *values

    def slot(self, slots: Any, number: Array) -> Any:
        """That of a row."""
        return slots.at[pl.ds(number * self.shape[0], self.shape[0])]

    @property
    def parts(self) -> list[tuple[int, int]]:
        """First value and number of values of each copy of a whole row."""
        values = self._rounded(self.width * self.groups * self.taps)
        most = values if self._bulk else MOST_COPIED
        return [(first, min(most, values - first)) for first in range(0, values, most)]

    @property
    def copies(self) -> int:
        return len(self.parts) if self.whole else 1

    def of(self, array: Array) -> Array:
        """The array as `start` takes it."""
        pixels = jnp.pad(array.reshape(-1, self.groups * self.taps), ((self._in_front, 0), (0, 0)))
        return pixels.reshape(-1) if self.whole else pixels

    def start(self, source: Any, target: Any, barrier: Any, pixel: Array, group: Array) -> None:
        """Copies the row of a block from this pixel and group on; what lies beyond the array is not used."""
        pixel += self._in_front - self.lead
        if not self.whole:
            window = source.at[pl.ds(pixel, self.width), pl.ds(group * self.taps, self.shape[1])]
            plgpu.copy_gmem_to_smem(window, target, barrier)
            return
        size = self.groups * self.taps
        first_value = pixel * size
        if not self._bulk:
            for first, count in self.parts:
                window = source.at[pl.ds(first_value + first, count)]
                plgpu.copy_gmem_to_smem(window, target.at[pl.ds(first, count)], barrier)
            return

        # Nothing lies before the array: what is read of the row is then put behind the place of what is missing.
        count, missing = self._rounded(self.width * size), jnp.maximum(-first_value, 0) if self.lead else 0
        window = source.at[pl.ds(first_value + missing, count)]
        mode = plgpu.OOBFillMode.UNDEFINED
        plgpu.copy_gmem_to_smem(window, target.at[pl.ds(missing, count)], barrier, oob_mode=mode)

    def _rounded(self, values: int) -> int:
        unit = COPY_BYTES // self.itemsize
        return -(-values // unit) * unit

    @property
    def _neighbours(self) -> int:
        """Values that are copied of each pixel, of `EVEN` neighbouring ones: so many that they fill `COPY_BYTES`."""
        unit = COPY_BYTES // EVEN // self.itemsize
        return -(-self.block_groups * self.taps // unit) * unit

    @property
    def _pixel(self) -> int:
        return self.groups * self.taps * self.itemsize

    @property
    def _aligned(self) -> bool:
        return self.row * self._pixel % LOAD_BYTES == 0 and self.step * self._pixel % LOAD_BYTES == 0

    @property
    def _bulk(self) -> bool:
        return self.whole and self._aligned

    @property
    def _in_front(self) -> int:
        """Pixels that are put before the array."""
        return self.lead if self.interpreted and not self._bulk else 0
