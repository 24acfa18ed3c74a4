"""The blocks of a call and their sizes: one warpgroup streams down the rows of a block."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.mosaic_gpu.copies import COPY_BYTES, FilterRows

Kernel = Literal["fwd", "dx", "dfilters"]  # dx: of the transposed call

WARPS, LANES = 4, 32  # of a warpgroup
BARRIER_BYTES = 1024  # of all barriers, from above
BUFFER_BYTES = 1024  # of a buffer in shared memory: a multiple of these
REDUCTION_BYTES = 2048  # of sums over warps
TAPS_IN_REGISTERS = 9  # of the channel filter


@dataclasses.dataclass(frozen=True)
class Block:
    """The positions and channels of a warpgroup.

    Args:
      channels: all of one group, or all of some groups.
      groups: how many groups those are.
      vector: neighbouring channels of a thread.
      columns: neighbouring positions of a thread along Wo.
      rows: positions along Ho, one after the other.
      ahead: how many steps before its use a row of x is asked for.
      beyond: how many positions of the last threads are not those of the block.
      chunks: how many times a thread has `vector` channels, evenly spaced in those of a block of one group.
    """

    channels: int
    groups: int
    vector: int
    columns: int
    rows: int
    ahead: int
    beyond: int = 0
    chunks: int = 1

    @property
    def threads(self) -> int:
        """Threads side by side along Wo."""
        return WARPS * LANES * self.vector * self.chunks // self.channels

    @property
    def covered(self) -> int:
        """Positions of the threads along Wo."""
        return self.threads * self.columns

    @property
    def width(self) -> int:
        """Positions along Wo."""
        return self.covered - self.beyond


@dataclasses.dataclass(frozen=True)
class Stream:
    """The rows of x that a block reads, `rows` at each step, and the ages of the positions that read them.

    At step n the position m = n - age reads row e of the step with its tap in row `rows`·age + e.
    """

    rows: int
    taps: int

    @property
    def oldest(self) -> int:
        return (self.taps - 1) // self.rows

    def tap(self, age: int, row: int) -> int | None:
        """The row of the tap, if there is one."""
        tap = self.rows * age + row
        return tap if tap < self.taps else None


def stream(shape: ArgShape) -> Stream:
    return Stream(shape.spec.stride[0], shape.spec.kernel_size[0])


def transposed(shape: ArgShape, itemsize: int) -> ArgShape:
    """The call that filters dy, of values of so many bytes, to dx, at a stride of 1."""
    spec = shape.spec
    padding = [(span - before, span - after) for span, (before, after) in zip(spec.span, spec.padding, strict=True)]
    height, width = shape.positions
    spec = dataclasses.replace(spec, padding=padding)
    return dataclasses.replace(shape, spec=spec, height=height, width=width, itemsize=itemsize)


def filter_rows(
    shape: ArgShape, block: Block, kernel: Kernel, taps: int, itemsize: int, *, interpreted: bool = False
) -> FilterRows:
    """The rows of filters that a block copies: of the spatial filter, or of its statistics, 2 values."""
    of_dx = kernel == "dx"
    return FilterRows(
        taps,
        shape.groups,
        block.groups,
        columns=filter_columns(shape, block, kernel),
        before=shape.spec.origin[1] if of_dx else 0,
        step=block.width if block.width < shape.positions[1] else 0,
        row=(shape.width if of_dx else shape.positions[1]),
        itemsize=itemsize,
        interpreted=interpreted,
    )


def kept_rows(shape: ArgShape, block: Block, kernel: Kernel) -> int:
    """Rows of filters that shared memory holds."""
    return block.ahead + (0 if kernel == "dx" else stream(shape).oldest)


def shared_bytes(shape: ArgShape, block: Block, kernel: Kernel = "fwd", itemsizes: Sequence[int] = ()) -> int:
    """Bytes of shared memory, from above, where each of the other arrays has one of these itemsizes, or that of x."""
    rows, taps, sizes = stream(shape), shape.spec.taps, {shape.itemsize, *itemsizes}
    kept, largest = kept_rows(shape, block, kernel), max(sizes)

    def filter_bytes(taps: int, itemsize: int) -> int:
        slots = filter_rows(shape, block, kernel, taps, itemsize).slots(kept, block.beyond)
        return math.prod(slots) * itemsize

    parts = [block.ahead * rows.rows * loaded_columns(shape, block) * block.channels * shape.itemsize]
    if shape.has_spatial:
        parts.append(max(filter_bytes(taps, itemsize) for itemsize in sizes))
        if shape.spec.normalize:
            parts.append(filter_bytes(2, 4))
    if shape.has_channel:
        parts.append(taps * block.channels * largest + COPY_BYTES)
    if kernel != "dfilters":
        parts.append(2 * block.covered * block.channels * largest)
    else:
        parts.append(kept * block.width * block.channels * largest)  # dy
        parts += [(rows.oldest + 3) * (block.width * taps * 4 + COPY_BYTES), REDUCTION_BYTES]
    return BARRIER_BYTES + sum(-(-part // BUFFER_BYTES) * BUFFER_BYTES for part in parts)


def num_blocks(shape: ArgShape, block: Block) -> int:
    """Of a launch."""
    strips, tiles = num_strips(shape, block), -(-shape.positions[1] // block.width)
    return shape.batch * strips * tiles * (shape.channels // block.channels)


def num_strips(shape: ArgShape, block: Block) -> int:
    """Blocks along Ho. With a dilation there, a block has every so many-th row."""
    apart = shape.spec.dilation[0]
    return -(-shape.positions[0] // (block.rows * apart)) * apart


def loop_trips(shape: ArgShape, block: Block) -> tuple[int, ...]:
    """Iterations of the kernel's loop over the steps in which positions of every age read; none if it runs once."""
    trips = block.rows - stream(shape).oldest
    return (trips,) if trips > 1 else ()


def step_bytes(shape: ArgShape, block: Block, kernel: Kernel = "fwd") -> int:
    """Bytes that a step copies to shared memory."""
    x = stream(shape).rows * loaded_columns(shape, block) * block.channels
    dy = block.width * block.channels * (kernel == "dfilters")
    return (x + dy + block.width * block.groups * shape.spec.taps * shape.has_spatial) * shape.itemsize


def loaded_columns(shape: ArgShape, block: Block) -> int:
    """Columns of x that a block loads: whole positions of a thread, and whole `COPY_BYTES`."""
    step = shape.spec.stride[1] * block.columns
    threads = block.threads + last_column(shape, block) // step
    while threads * step * stream(shape).rows * block.channels * shape.itemsize % COPY_BYTES:
        threads += 1
    return threads * step


def filter_columns(shape: ArgShape, block: Block, kernel: Kernel) -> int:
    """Filters of a row that a block uses: of its positions, or for dx of all that read its pixels."""
    return loaded_columns(shape, block) + block.columns - 1 if kernel == "dx" else block.width


def last_column(shape: ArgShape, block: Block) -> int:
    """The last column of x that a thread reads, relative to its first."""
    return shape.spec.stride[1] * (block.columns - 1) + shape.spec.span[1]
