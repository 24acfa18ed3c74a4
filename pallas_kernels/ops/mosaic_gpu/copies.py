"""Asynchronous copies of a row of filters to shared memory, by the fastest kind that its addresses allow."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.ops.config import LOAD_BYTES
from pallas_kernels.ops.mosaic_gpu.blocks import COPY_BYTES, MOST_COPIED


@dataclasses.dataclass(frozen=True)
class FilterRows:
    """Rows of `width` neighbouring filters of a block: of an array [pixels, groups, taps], some of its groups.

    Rows whose addresses are multiples of 16 bytes take one copy of any size. Else those whose pixels are take one
    copy of two axes, and others take copies of at most 256 values.

    Args:
      taps: values of a filter.
      groups: of the array.
      block_groups: of the block.
      width: filters of a row.
      row: filters from one row of the image to the next.
      dtype: of the array.
    """

    taps: int
    groups: int
    block_groups: int
    width: int
    row: int
    dtype: Any

    @property
    def itemsize(self) -> int:
        return jnp.dtype(self.dtype).itemsize

    @property
    def whole(self) -> bool:
        """Whether rows are copied with all of their groups."""
        return self.block_groups == self.groups or not self._pitched

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row in shared memory."""
        if self.whole:
            return (sum(count for _, count in self.parts),)
        unit = max(LOAD_BYTES, COPY_BYTES // self.width) // self.itemsize
        return self.width, -(-self.block_groups * self.taps // unit) * unit

    @property
    def parts(self) -> list[tuple[int, int]]:
        """First value and number of values of each copy of a whole row."""
        unit = COPY_BYTES // self.itemsize
        values = -(-self.width * self.groups * self.taps // unit) * unit
        most = values if self._aligned else MOST_COPIED
        return [(first, min(most, values - first)) for first in range(0, values, most)]

    @property
    def copies(self) -> int:
        return len(self.parts) if self.whole else 1

    def of(self, array: Array) -> Array:
        """The array as `start` takes it."""
        return array.reshape(-1) if self.whole else array.reshape(-1, self.groups * self.taps)

    def start(self, source: Any, target: Any, barrier: Any, pixel: Array, group: Array) -> None:
        """Copies the row from this pixel and group on; what lies beyond the array is not used."""
        if not self.whole:
            window = source.at[pl.ds(pixel, self.width), pl.ds(group * self.taps, self.shape[1])]
            plgpu.copy_gmem_to_smem(window, target, barrier)
            return
        for first, count in self.parts:
            window = source.at[pl.ds(pixel * (self.groups * self.taps) + first, count)]
            mode = plgpu.OOBFillMode.UNDEFINED if self._aligned else plgpu.OOBFillMode.ZEROS
            plgpu.copy_gmem_to_smem(window, target.at[pl.ds(first, count)], barrier, oob_mode=mode)

    @property
    def _pitched(self) -> bool:
        return self.groups * self.taps * self.itemsize % LOAD_BYTES == 0 and self.shape_fits

    @property
    def shape_fits(self) -> bool:
        return self.block_groups * self.taps <= MOST_COPIED - COPY_BYTES // self.itemsize

    @property
    def _aligned(self) -> bool:
        pixel = self.groups * self.taps * self.itemsize
        return self.row * pixel % LOAD_BYTES == 0 and self.width * pixel % LOAD_BYTES == 0
