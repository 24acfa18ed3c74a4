"""The positions and channels of a program, and guarded loads and stores, shared by the Triton kernels.

Every value is a tile [P, C'] (patches × channels) or broadcasts against one. Offsets within a patch are Python numbers,
so the code of a patch is unrolled, and bounds that hold for every patch cost nothing.

Kernels take arrays as [pixels, …]. One unsigned number counts the pixels of the whole batch: only then can the compiler
prove that nothing wraps around, and make the addresses of a patch one register and many constants.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.pallas import triton as plgpu

from pallas_kernels.ops.spec import FilterSpec

Offset = int | Array


class Axis(NamedTuple):
    """One spatial axis of an array, relative to the patches."""

    origin: Array  # [P, 1]: the coordinate of each patch's first position
    last: int  # the largest origin
    size: int

    def inside(self, offset: Offset) -> Array | None:
        """Whether the coordinate at an offset lies inside the array (None: it does for every patch)."""
        if isinstance(offset, int) and 0 <= offset < self.size - self.last:
            return None
        return shifted(self.origin, offset) < self.size  # unsigned: below 0 is far beyond the size

    def clamped(self, offset: int) -> Array:
        """The coordinate at an offset, or the last one."""
        return jnp.minimum(shifted(self.origin, offset), jnp.uint32(self.size - 1))


class Image(NamedTuple):
    """The pixels of an array, relative to the patches."""

    sample: Array  # [P, 1]
    row: Axis
    column: Axis

    def at(self, row: Offset, column: Offset) -> tuple[Array, Array | None]:
        """The number of the pixel at an offset, and whether it exists (None: for every patch)."""
        index = shifted(self._number(self.row.origin, self.column.origin), row * self.column.size + column)
        return index, all_of(self.row.inside(row), self.column.inside(column))

    def clamped(self, row: int, column: int) -> Array:
        """The number of the pixel at an offset, or of an existing one: for values that are not used."""
        index, inside = self.at(row, column)
        return index if inside is None else self._number(self.row.clamped(row), self.column.clamped(column))

    def moved(self, rows: Array, most: int) -> "Image":
        """The image relative to patches that lie `rows` further down, at most `most`."""
        return self._replace(row=Axis(self.row.origin + rows, self.row.last + most, self.row.size))

    def _number(self, row: Array, column: Array) -> Array:
        return (self.sample * self.row.size + row) * self.column.size + column


class Patches(NamedTuple):
    """The places of a program's patches, counted in patches."""

    sample: Array  # [P, 1]
    row: Array  # [P, 1]
    column: Array  # [P, 1]
    grid: tuple[int, int]  # patches of a sample, along both axes

    @classmethod
    def numbered(cls, number: Array, batch: int, count: tuple[int, int]) -> "Patches":
        """From numbers counted through the batch; those beyond the end, in the last program, repeat the last patch."""
        rows, columns = count
        number = jnp.minimum(number, jnp.uint32(batch * rows * columns - 1))
        return cls(number // (rows * columns), number // columns % rows, number % columns, count)

    @classmethod
    def of_sample(cls, sample: Array, number: Array, batch: int, count: tuple[int, int]) -> "Patches":
        """From numbers counted through one sample; those beyond its end repeat its last patch."""
        rows, columns = count
        number = jnp.minimum(number, jnp.uint32(rows * columns - 1))
        sample = jnp.minimum(sample, jnp.uint32(batch - 1))  # a no-op that tells the compiler that nothing wraps
        return cls(jnp.broadcast_to(sample, number.shape), number // columns, number % columns, count)

    def image(self, step: tuple[int, int], size: tuple[int, int]) -> Image:
        """The pixels of an array of this size in which neighbouring patches start `step` pixels apart."""
        rows, columns = self.grid
        row = Axis(self.row * step[0], (rows - 1) * step[0], size[0])
        return Image(self.sample, row, Axis(self.column * step[1], (columns - 1) * step[1], size[1]))


class Channels(NamedTuple):
    """The channels of a program, all of one group."""

    numbers: Array  # [1, C']
    group: Array  # scalar
    live: Array | None  # [1, C'], None where blocks divide the group

    @classmethod
    def block(cls, number: Array, block: int, channels: int, groups: int) -> "Channels":
        """Blocks are numbered group by group."""
        size = channels // groups
        blocks = -(-size // block)
        group, within = number // blocks, number % blocks * block + lax.iota(jnp.uint32, block)[None, :]
        return cls(group * size + within, group, None if size % block == 0 else within < size)


class Taps(NamedTuple):
    """The current block of taps. Its numbers are Python's where one block holds all taps."""

    first_row: Offset
    first_column: Offset
    rows: int
    columns: int
    spec: FilterSpec

    @property
    def offset(self) -> tuple[Offset, Offset]:
        """From a position's centre to the pixel under the first tap, along both axes."""
        (down, right), (top, left) = self.spec.dilation, self.spec.origin
        return down * self.first_row - top, right * self.first_column - left

    def number(self, sub: int, row: int, column: int) -> Offset:
        """The number, among the S²·T of a position, of a tap of the block for sub-pixel `sub`."""
        _, columns = self.spec.kernel_size
        return sub * self.spec.taps + (self.first_row + row) * columns + self.first_column + column

    def unsigned_number(self, sub: int, row: int, column: int) -> Array:
        return jnp.asarray(self.number(sub, row, column)).astype(jnp.uint32)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Loads to float32, and stores from it. A false mask suppresses both."""

    interpret: bool

    def load(self, ref, index: tuple, *masks: Array | None) -> Array:
        """float32 values, zero where a mask is false."""
        mask = all_of(*masks)
        if mask is None:
            return self._widen(plgpu.load(ref.at[index]))
        shape = jnp.broadcast_shapes(*(jnp.shape(i) for i in index))
        return self._widen(plgpu.load(ref.at[index], mask=jnp.broadcast_to(mask, shape), other=0.0))

    def store(self, ref, index: tuple, value: Array, *masks: Array | None) -> None:
        mask = all_of(*masks)
        mask = None if mask is None else jnp.broadcast_to(mask, value.shape)
        plgpu.store(ref.at[index], value.astype(ref.dtype), mask=mask)

    def _widen(self, value: Array) -> Array:
        if value.dtype != jnp.bfloat16 or self.interpret or value.shape[-1] == 1:
            return value.astype(jnp.float32)
        # Two bfloat16 are the halves of one register: a shift and a mask, where the compiler's conversion takes three.
        [wide] = plgpu.elementwise_inline_asm(
            "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;",
            args=[value],
            constraints="=r,=r,r",
            pack=2,
            result_shape_dtypes=[jax.ShapeDtypeStruct(value.shape, jnp.float32)],
        )
        return wide


def shifted(index: Array, offset: Offset) -> Array:
    """index + offset, which may be negative."""
    if not isinstance(offset, int):
        return index + offset.astype(jnp.uint32)
    return index + offset if offset >= 0 else index - -offset


def all_of(*masks: Array | None) -> Array | None:
    """The conjunction of masks, where None is true."""
    result = None
    for mask in masks:
        if mask is not None:
            result = mask if result is None else result & mask
    return result
