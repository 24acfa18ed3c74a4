"""The choice of a block: those that fit a multiprocessor, and a rough count of the time of each."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Sequence

from pallas_kernels.ops.config import COUNT_LIMIT, LOAD_BYTES, ArgShape
from pallas_kernels.ops.mosaic_gpu.blocks import (
    LANES,
    TAPS_IN_REGISTERS,
    WARPS,
    Block,
    Kernel,
    last_column,
    loaded_columns,
    num_blocks,
    shared_bytes,
    stream,
    transposed,
)
from pallas_kernels.ops.mosaic_gpu.copies import MOST_COPIED

BANKS_BYTES = 128  # of shared memory: narrower rows with gaps between them would be written to the same banks
MOST_COLUMNS = MOST_COPIED - 24  # of a block, without those that are copied for the address alone
MOST_TAPS = 81  # the code is unrolled over them

# Of a multiprocessor of Hopper, and how many of them an H200 has.
SHARED_BYTES = 227 * 1024
RESERVED_BYTES = 1024  # of each block, in addition to them
REGISTERS = 65536
MOST_REGISTERS = 255  # of a thread
MOST_BLOCKS = 16
MULTIPROCESSORS = 132

# From ptxas's code for DDF and involution.
BASE_REGISTERS, COLUMN_REGISTERS, PARTIAL_REGISTERS = 36, 8, 12  # the last: where the last of several blocks is partial
SOME_GROUPS = 1.1  # times the instructions, where a block finds its groups among others
BASE_INSTRUCTIONS = 130  # of a step: barriers, addresses, copies


def choose_block(shape: ArgShape, kernel: Kernel = "fwd", itemsizes: Sequence[int] = ()) -> Block | None:
    """The block with the least time by a rough count of instructions, or None if none fits.

    Args:
      shape: of the call.
      kernel: which one.
      itemsizes: bytes of a value of each array and of the result, where they are not those of x (of dx: of dy).
    """
    candidates = _candidates(shape, kernel, {shape.itemsize, *itemsizes})
    return min(candidates, key=lambda block: _time(shape, block, kernel), default=None)


def why_not(shape: ArgShape, itemsizes: Sequence[int], kernel: Kernel = "fwd") -> str | None:
    """Why the kernel cannot compute a call, or None where it can.

    The arguments are those of `choose_block`, but of dx the shape is that of the call itself, and the first itemsize
    that of dy.
    """
    spec, bytes_ = shape.spec, shape.channels * min(itemsizes)
    aside, of_dx = "has no cotangent of x", kernel == "dx"
    least = min(map(min, transposed(shape, shape.itemsize).spec.padding))
    values = shape.batch * math.prod(shape.positions) * shape.groups * max(spec.taps, 2)
    rules = {
        "has no upsampling.": spec.scale == 1,
        f"{aside} at a stride, got {spec.stride}.": not of_dx or spec.stride == (1, 1),
        f"{aside} with padding past the filter.": not of_dx or least >= 0,
        "has no stride and dilation along H at once.": spec.dilation[0] == 1 or spec.stride[0] == 1,
        f"has at most {MOST_TAPS} taps, got {spec.taps}.": spec.taps <= MOST_TAPS,
        f"needs channels of a multiple of {LOAD_BYTES} bytes, got {bytes_}.": bytes_ % LOAD_BYTES == 0,
        "counts the spatial filter's values in 31 bits.": values <= COUNT_LIMIT,
        "has no empty result.": values > 0,
    }
    for reason, holds in rules.items():
        if not holds:
            return reason
    if of_dx:
        shape = transposed(shape, itemsizes[0])
    if choose_block(shape, kernel, itemsizes) is None:
        return f"has no block for {shape.groups} groups of {shape.group_channels} channels and {spec.taps} taps."
    return None


def _candidates(shape: ArgShape, kernel: Kernel, itemsizes: Collection[int]) -> Iterator[Block]:
    smallest, largest = min(itemsizes), max(itemsizes)
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
        if columns > 1 and channels * smallest < BANKS_BYTES:
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
            fits = shared_bytes(shape, block, kernel, [*itemsizes]) <= SHARED_BYTES
            if fits and loaded_columns(shape, block) <= MOST_COLUMNS and resident(shape, block, kernel, [*itemsizes]):
                yield block


def registers(shape: ArgShape, block: Block, kernel: Kernel = "fwd") -> int:
    """Of a thread, roughly."""
    taps = shape.spec.taps
    sums = block.columns * (stream(shape).oldest + 1) + taps * (kernel == "dfilters")
    channel = taps if shape.has_channel and taps <= TAPS_IN_REGISTERS else 0
    ahead = taps * block.columns if kernel == "dx" and taps > TAPS_IN_REGISTERS else 0  # loads of filters
    columns = BASE_REGISTERS + COLUMN_REGISTERS * block.columns
    if kernel != "dfilters" and block.width < shape.positions[1] and shape.positions[1] % block.width:
        columns += PARTIAL_REGISTERS
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


def resident(shape: ArgShape, block: Block, kernel: Kernel = "fwd", itemsizes: Sequence[int] = ()) -> int:
    """Blocks of a multiprocessor at a time."""
    if (used := registers(shape, block, kernel)) > MOST_REGISTERS:
        return 0
    of_thread = -(-used // 8) * 8
    by_memory = (SHARED_BYTES + RESERVED_BYTES) // (shared_bytes(shape, block, kernel, itemsizes) + RESERVED_BYTES)
    return min(REGISTERS // (WARPS * LANES * of_thread), by_memory, MOST_BLOCKS)


def _time(shape: ArgShape, block: Block, kernel: Kernel) -> tuple[float, int]:
    """In an arbitrary unit; of equal ones the larger block."""
    together = resident(shape, block, kernel)
    waves = math.ceil(num_blocks(shape, block) / (together * MULTIPROCESSORS))
    # The first and the last steps of a strip have part of the taps only.
    steps = block.rows + 0.5 * stream(shape).oldest
    # Of the issue slots; what is unrolled over many taps hides more of its latency.
    busy = together / (together + (0.7 if shape.spec.taps <= TAPS_IN_REGISTERS else 0.35))
    if shape.has_spatial and block.groups < shape.groups and shape.spec.taps > TAPS_IN_REGISTERS:
        busy /= SOME_GROUPS
    return round(waves * together * steps * instructions(shape, block, kernel) / busy), -block.channels * block.columns
