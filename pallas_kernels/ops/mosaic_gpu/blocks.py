"""The division of a call into blocks: one warpgroup streams down the rows of a block."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Literal

from pallas_kernels.ops.config import COUNT_LIMIT, LOAD_BYTES, ArgShape

Kernel = Literal["fwd", "dx", "dfilters"]  # dx: of the transposed call

WARPS, LANES = 4, 32  # of a warpgroup
COPY_BYTES = 128  # of a copy to shared memory: a multiple of these
EVEN = 4  # the number of neighbouring filters that a copy of several axes brings: a multiple
SMALLEST = 2  # bytes of a value
BANKS_BYTES = 128  # of shared memory: narrower rows with gaps between them would be written to the same banks
BUFFER_BYTES = 1024  # of a buffer in shared memory: a multiple of these
REDUCTION_BYTES = 2048  # of sums over warps
MOST_COPIED = 256  # pixels, channels or values of a copy along an axis
MOST_COLUMNS = MOST_COPIED - 24  # of a block, without those that are copied for the address alone
MOST_TAPS = 81  # the code is unrolled over them
TAPS_IN_REGISTERS = 9  # of the channel filter

# Of a multiprocessor of Hopper, and how many of them an H200 has.
SHARED_BYTES = 227 * 1024
REGISTERS = 65536
MOST_REGISTERS = 255  # of a thread
MOST_BLOCKS = 16
MULTIPROCESSORS = 132

# From ptxas's code for DDF and involution.
BASE_REGISTERS, COLUMN_REGISTERS = 36, 8
BASE_INSTRUCTIONS = 130  # of a step: barriers, addresses, copies


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


def transposed(shape: ArgShape) -> ArgShape:
    """The call that filters dy to dx, at a stride of 1."""
    spec = shape.spec
    padding = [(span - before, span - after) for span, (before, after) in zip(spec.span, spec.padding, strict=True)]
    height, width = shape.positions
    return dataclasses.replace(shape, spec=dataclasses.replace(spec, padding=padding), height=height, width=width)


def choose_block(shape: ArgShape, kernel: Kernel = "fwd", itemsizes: Sequence[int] = ()) -> Block | None:
    """The block with the least time by a rough count of instructions, or None if none fits.

    Args:
      shape: of the call.
      kernel: which one.
      itemsizes: bytes of a value of each array and of the result, where they are not those of x.
    """
    sizes = (shape.itemsize, *itemsizes)
    candidates = _candidates(shape, kernel, min(sizes), max(sizes))
    return min(candidates, key=lambda block: _time(shape, block, kernel), default=None)


def why_not(shape: ArgShape, itemsizes: Sequence[int], kernel: Kernel = "fwd") -> str | None:
    """Why the kernel cannot compute a call, or None where it can. The arguments are those of `choose_block`."""
    spec, bytes_ = shape.spec, shape.channels * min(itemsizes)
    aside = "has no cotangent of x"
    values = shape.batch * math.prod(shape.positions) * shape.groups * max(spec.taps, 2)
    rules = {
        "has no upsampling.": spec.scale == 1,
        f"{aside} at a stride, got {spec.stride}.": kernel != "dx" or spec.stride == (1, 1),
        f"{aside} with padding past the filter.": kernel != "dx" or min(map(min, transposed(shape).spec.padding)) >= 0,
        "has no stride and dilation along H at once.": spec.dilation[0] == 1 or spec.stride[0] == 1,
        f"has at most {MOST_TAPS} taps, got {spec.taps}.": spec.taps <= MOST_TAPS,
        f"needs channels of a multiple of {LOAD_BYTES} bytes, got {bytes_}.": bytes_ % LOAD_BYTES == 0,
        "counts the spatial filter's values in 31 bits.": values <= COUNT_LIMIT,
        "has no empty result.": values > 0,
    }
    for reason, holds in rules.items():
        if not holds:
            return reason
    if kernel == "dx":
        shape = transposed(shape)
    if choose_block(shape, kernel, itemsizes) is None:
        return f"has no block for {shape.groups} groups of {shape.group_channels} channels and {spec.taps} taps."
    return None


def shared_bytes(shape: ArgShape, block: Block, kernel: Kernel = "fwd", itemsize: int = 0) -> int:
    """Bytes of shared memory, from above, with arrays of at most `itemsize` bytes a value; by default those of x."""
    rows, taps, of_filters = stream(shape), shape.spec.taps, max(itemsize, shape.itemsize)
    kept = block.ahead + (0 if kernel == "dx" else rows.oldest)  # rows of filters
    columns = filter_columns(shape, block, kernel) + (LOAD_BYTES if kernel == "dx" else 0)
    x = block.ahead * rows.rows * loaded_columns(shape, block) * block.channels * shape.itemsize
    values = shape.groups * taps
    if any(apart(values, block.groups * taps, size) for size in (SMALLEST, 2 * SMALLEST)):
        columns = -(-columns // EVEN) * EVEN
        if of_filters == SMALLEST:
            values = neighbours(block.groups * taps, SMALLEST)
    filters = (kept * columns + block.beyond) * shape.has_spatial
    spatial = filters * values * of_filters + (kept + 1) * COPY_BYTES
    statistics = filters * shape.groups * 8 + (kept + 1) * COPY_BYTES if shape.spec.normalize else 0
    channel = taps * block.channels * of_filters + COPY_BYTES if shape.has_channel else 0
    if kernel != "dfilters":
        results = [2 * block.covered * block.channels * of_filters]
    else:
        dy = kept * block.width * block.channels * of_filters
        results = [dy, (rows.oldest + 3) * (block.width * taps * 4 + COPY_BYTES), REDUCTION_BYTES]
    return sum(-(-part // BUFFER_BYTES) * BUFFER_BYTES for part in (x, spatial, statistics, channel, *results))


def apart(pixel: int, values: int, itemsize: int) -> bool:
    """Whether some of the values of a pixel can be copied without the others."""
    return pixel * itemsize % LOAD_BYTES == 0 and neighbours(values, itemsize) <= MOST_COPIED and values < pixel


def neighbours(values: int, itemsize: int) -> int:
    """Values that are copied of each pixel, of `EVEN` neighbouring ones: so many that they fill `COPY_BYTES`."""
    unit = COPY_BYTES // EVEN // itemsize
    return -(-values // unit) * unit


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


def _candidates(shape: ArgShape, kernel: Kernel, smallest: int, largest: int) -> Iterator[Block]:
    group, (height, _) = shape.group_channels, shape.positions
    if kernel == "dfilters" and shape.spec.taps > TAPS_IN_REGISTERS:
        return
    heights = sorted({-(-height // strips) for strips in range(1, max(2, height // 4 + 1))})
    widest = LOAD_BYTES // (4 if kernel == "dfilters" else largest)  # a thread writes at most 16 bytes at once
    vectors, several = (widest, widest // 2), (1, 2, 4) if kernel == "dfilters" else (1,)
    for vector, chunks, lanes, columns in itertools.product(vectors, several, (1, 2, 4, 8, 16, 32), (1, 2, 4)):
        channels = lanes * vector * chunks
        whole = channels % group == 0 and group % vector == 0
        groups = channels // group if whole else 1
        if shape.channels % channels or not (whole or group % channels == 0) or groups & (groups - 1):
            continue
        if columns > 1 and channels * shape.itemsize < BANKS_BYTES:
            continue
        if channels // groups * smallest % LOAD_BYTES:  # the least that is copied
            continue
        # One group, as few partial sums of it as there can be, and sums of channels that fill lines of the memory.
        few = channels >= min(group, LANES * vector) and lanes * vector >= 32
        if kernel == "dfilters" and (groups > 1 or not few):
            continue
        for rows, ahead in itertools.product(heights, (2,) if kernel == "dfilters" else (4, 2)):
            block = Block(channels, groups, vector, columns, rows, ahead, chunks=chunks)
            if kernel == "fwd":  # the filters take most of the memory: no more of them than there must be
                tiles = -(-shape.positions[1] // block.covered)
                width = -(-shape.positions[1] // tiles)
                if tiles == 1 or width * shape.groups * shape.spec.taps * shape.itemsize % LOAD_BYTES == 0:
                    block = dataclasses.replace(block, beyond=block.covered - width)
            fits = shared_bytes(shape, block, kernel, largest) <= SHARED_BYTES
            if fits and loaded_columns(shape, block) <= MOST_COLUMNS and resident(shape, block, kernel):
                yield block


def registers(shape: ArgShape, block: Block, kernel: Kernel = "fwd") -> int:
    """Of a thread, roughly."""
    taps = shape.spec.taps
    sums = block.columns * (stream(shape).oldest + 1) + taps * (kernel == "dfilters")
    channel = taps if shape.has_channel and taps <= TAPS_IN_REGISTERS else 0
    ahead = taps * block.columns if kernel == "dx" and taps > TAPS_IN_REGISTERS else 0  # loads of filters
    columns = BASE_REGISTERS + COLUMN_REGISTERS * block.columns
    return columns + ahead + block.vector * block.chunks * (1 + sums + channel)


def instructions(shape: ArgShape, block: Block, kernel: Kernel = "fwd") -> float:
    """Of a thread for one step, roughly."""
    taps, channels = shape.spec.taps, block.vector * block.chunks
    arithmetic = 3 if kernel == "dfilters" else shape.has_channel + shape.has_spatial
    converted = 1 + (0 if shape.itemsize == 4 else block.vector)  # of each load of channels
    x = stream(shape).rows * (last_column(shape, block) + 1) * block.chunks * converted
    spatial = block.columns * taps * (2 + 2 * bool(shape.spec.normalize)) * shape.has_spatial
    again = taps * (1 + channels) if shape.has_channel and taps > TAPS_IN_REGISTERS else 0
    total = BASE_INSTRUCTIONS + block.columns * channels * taps * arithmetic + x + spatial + block.columns * again
    if kernel != "dfilters":
        return total
    lanes = block.channels // channels
    sums = taps * (block.vector + 2 * math.log2(lanes) + 3)
    dy = (stream(shape).oldest + 1) * block.chunks * converted
    return total + block.columns * (sums + dy)


def resident(shape: ArgShape, block: Block, kernel: Kernel = "fwd") -> int:
    """Blocks of a multiprocessor at a time."""
    if (used := registers(shape, block, kernel)) > MOST_REGISTERS:
        return 0
    of_thread = -(-used // 8) * 8
    by_memory = SHARED_BYTES // (shared_bytes(shape, block, kernel) + 1024)
    return min(REGISTERS // (WARPS * LANES * of_thread), by_memory, MOST_BLOCKS)


def _time(shape: ArgShape, block: Block, kernel: Kernel) -> tuple[float, int]:
    """In an arbitrary unit; of equal ones the larger block."""
    together = resident(shape, block, kernel)
    waves = math.ceil(num_blocks(shape, block) / (together * MULTIPROCESSORS))
    # The first and the last steps of a strip have part of the taps only.
    steps = block.rows + 0.5 * stream(shape).oldest
    busy = together / (together + 0.7)  # of the issue slots
    return round(waves * together * steps * instructions(shape, block, kernel) / busy), -block.channels * block.columns
