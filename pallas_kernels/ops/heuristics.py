"""Kernel configs by counting registers, for the calls that nobody has tuned.

Each thread of a kernel owns a *patch*: a few neighbouring positions times the channels of one 128-bit load. Within a
patch every loaded value is converted to float32 once and used for all taps that read it. The sizes below trade that
reuse against registers. The counts of instructions and registers come from `pallas_kernels.aot`.
"""

import dataclasses
import math

from pallas_kernels.ops.config import (
    ArgShape,
    BlockConfig,
    KernelName,
    num_channel_blocks,
    num_programs,
    rows_in_flight,
    steps_per_split,
)

NUM_WARPS = 4
THREADS = 32 * NUM_WARPS
NUM_SMS = 132
PROGRAMS_PER_DEVICE = 2 * NUM_SMS

# float32 values per thread. Operands in flight and addresses need the rest of the 255 registers: above these budgets
# kernels spilled.
TAP_REGISTERS = 90  # values kept per tap
POSITION_REGISTERS = 32  # values kept per position
DSPATIAL_REGISTERS = 88  # values kept per tap and per position, in dspatial
DFILTERS_REGISTERS = 144  # values kept per tap, in dfilters
UNROLLED_REGISTERS = 128  # values kept per tap and per row in flight, in fwd and dx with all taps at once

# Unrolled code.
UNROLLED_TERMS = 128  # multiply-adds per program and lane: more do not fit the instruction cache
UNROLLED_TAPS = 27  # taps per program: more are worth a loop
SUMS_PER_POSITION = 9  # dspatial: with more sums, a patch is one position wide

# Height of a patch of fwd and dx with the whole channel filter in registers. Shorter: reading the channel filter, once
# per patch, costs too many instructions. Taller, where neighbours share their rows of x: no registers are left to read
# ahead, and threads wait for memory. In fwd two rows leave room for 15 warps instead of 12, which hide more of the
# latency: `aot.predict` gives 4 to 19 % less time on an H200 than with four.
UNROLLED_TILE_H: dict[KernelName, tuple[int, int]] = {"fwd": (2, 2), "dx": (3, 4)}

# dfilters streams down tall patches. Programs of one warp that a multiprocessor holds at once, by the bytes of x, as
# their registers allow; and the height below which the first and last rows of x, which few positions read, cost most.
RESIDENT_PROGRAMS = {2: 8, 4: 12}
STREAMING_ROWS = 5


def backward_kernels(shape: ArgShape) -> tuple[KernelName, ...]:
    """The kernels of the backward pass: dx, then dfilters where it pays, otherwise dspatial and dchannel.

    dfilters pays where patches are tall, its programs fill a device, and the partial sums of dspatial over blocks of
    channels, in float32, are smaller than x.
    """
    if dfilters_fits(shape):
        config = heuristic_config(shape, "dfilters")
        blocks = num_channel_blocks(shape, config)
        partial_sums = 4 * blocks * shape.spec.taps if blocks > 1 else 0  # bytes per pixel and group
        small = partial_sums <= shape.itemsize * shape.group_channels
        if small and config.tile_h >= STREAMING_ROWS and num_programs(shape, config, "dfilters") >= NUM_SMS:
            return "dx", "dfilters"
    filters: tuple[tuple[KernelName, bool], ...] = ("dspatial", shape.has_spatial), ("dchannel", shape.has_channel)
    return "dx", *(kernel for kernel, present in filters if present)


def dfilters_fits(shape: ArgShape) -> bool:
    """Whether a thread can keep the channel filter, the sums of its cotangent and the dy of the rows in flight."""
    spec = shape.spec
    if not (shape.has_spatial and shape.has_channel and spec.scale == 1 and shape.itemsize in RESIDENT_PROGRAMS):
        return False
    return rows_in_flight(spec) <= 2 and 2 * shape.vector_size * spec.taps <= DFILTERS_REGISTERS


def heuristic_config(shape: ArgShape, kernel: KernelName) -> BlockConfig:
    """A config for which the values that a thread keeps per tap and per position fit its registers."""
    block_channels = _block_channels(shape)
    if kernel == "dfilters":
        return _streaming_config(shape, block_channels)
    taps_h, taps_w = _block_taps(shape, kernel)
    tile_h, tile_w = _tile(shape, kernel, taps_h, taps_w)
    num_warps = _num_warps(shape, kernel, taps_h)
    config = BlockConfig(
        block_patches=_block_patches(shape, block_channels, num_warps),
        block_channels=block_channels,
        tile_h=tile_h,
        tile_w=tile_w,
        block_taps_h=taps_h,
        block_taps_w=taps_w,
        num_warps=num_warps,
    )
    return dataclasses.replace(config, num_splits=_num_splits(shape, config)) if kernel == "dchannel" else config


def fits_registers(shape: ArgShape, kernel: KernelName, config: BlockConfig) -> bool:
    """Whether the values that a thread keeps stay within the budgets. Beyond them compilation takes up to a minute."""
    spec, vector_size, tile_w = shape.spec, shape.vector_size, config.tile_w
    if kernel == "dfilters":
        return (1 + tile_w) * vector_size * spec.taps <= DFILTERS_REGISTERS
    terms = config.block_taps_h * config.block_taps_w * spec.scale**2
    if not _keeps_channel_filter(shape, kernel, config.block_taps_h):
        return config.tile_h <= _largest_tile_h(shape, kernel, tile_w, config.block_taps_h, terms)
    kept = vector_size * (terms + tile_w * min(config.tile_h, config.block_taps_h))
    return kept <= UNROLLED_REGISTERS and config.tile_h * tile_w * terms <= UNROLLED_TERMS


def _block_channels(shape: ArgShape) -> int:
    """A cache line, 64 channels of bfloat16. Fewer for small groups, or where much of the last block would be idle."""
    group_channels, vector_size = shape.group_channels, shape.vector_size
    block = min(8 * vector_size, 2 ** math.ceil(math.log2(group_channels)))
    while block > vector_size and -group_channels % block > group_channels / 4:
        block //= 2
    return block


def _block_patches(shape: ArgShape, block_channels: int, num_warps: int) -> int:
    """One patch and one vector of channels per thread."""
    return 32 * num_warps * min(shape.vector_size, block_channels) // block_channels


def _num_warps(shape: ArgShape, kernel: KernelName, taps_h: int) -> int:
    """One or two where the compiler then takes the registers it needs, and the last programs leave less of it idle.

    The compiler rounds registers to how many programs fit: on an A100 some dspatial kernels of half precision spilled
    with four warps, some of float32 with two.
    """
    if kernel == "fwd" and _keeps_channel_filter(shape, kernel, taps_h):
        return 1
    if _keeps_channel_filter(shape, kernel, taps_h) or (kernel == "dspatial" and shape.itemsize < 4):
        return NUM_WARPS // 2
    return NUM_WARPS


def _block_taps(shape: ArgShape, kernel: KernelName) -> tuple[int, int]:
    """All taps where the values kept per tap fit the registers, else one filter row, else one tap.

    Per tap a thread keeps the filter of its channels, or its sums in dchannel; in dspatial also a sum per position.
    """
    spec = shape.spec
    if kernel == "dx" and spec.stride != (1, 1):
        return spec.kernel_size  # the taps that read a pixel depend on the pixel: unrolled
    for taps_h, taps_w in (spec.kernel_size, (1, spec.kernel_size[1])):
        taps = taps_h * taps_w * spec.scale**2
        kept = 0
        if shape.has_channel:
            kept += shape.vector_size * taps
        if kernel == "dspatial":
            kept += taps
        if kept <= TAP_REGISTERS and taps <= UNROLLED_TAPS:
            return taps_h, taps_w
    return 1, 1


def _keeps_channel_filter(shape: ArgShape, kernel: KernelName, taps_h: int) -> bool:
    """Whether it is fwd or dx with the whole channel filter in registers."""
    unrolled = taps_h == shape.spec.kernel_size[0] and shape.has_channel and shape.spec.scale == 1
    return unrolled and kernel in ("fwd", "dx")


def _tile(shape: ArgShape, kernel: KernelName, taps_h: int, taps_w: int) -> tuple[int, int]:
    """`tile_h` and `tile_w`: as large as registers and code size allow, for fewer halos and reads of the filters."""
    (step_h, step_w), (height, width) = shape.tile_step(kernel), shape.tiled_size(kernel)
    tile_w = step_w * math.ceil(_tile_w(shape, kernel, width, taps_h, taps_w) / step_w)
    terms = taps_h * taps_w * shape.spec.scale**2
    if (kernel == "dspatial" and terms > SUMS_PER_POSITION) or (kernel == "dchannel" and shape.spec.scale > 1):
        tile_w = 1
    tile_h = _largest_tile_h(shape, kernel, tile_w, taps_h, terms)
    shortest = 1
    if _keeps_channel_filter(shape, kernel, taps_h):
        shortest, tallest = UNROLLED_TILE_H[kernel]
        if kernel == "fwd" or (shape.spec.stride[0] == 1 and height > tile_h):
            tile_h = min(tile_h, tallest)
    # Shorter patches where there are too few to fill a device.
    columns = shape.batch * math.ceil(width / tile_w) * shape.channels / (THREADS * shape.vector_size)
    tile_h = max(1, min(tile_h, height, max(shortest, round(columns * height / PROGRAMS_PER_DEVICE))))
    tile_h = math.ceil(height / math.ceil(height / tile_h))  # even heights: no short patch at the end
    return step_h * math.ceil(tile_h / step_h), tile_w


def _largest_tile_h(shape: ArgShape, kernel: KernelName, tile_w: int, taps_h: int, terms: int) -> int:
    """The tallest patch whose code and registers fit; not positive where one position does not."""
    sub_pixels = shape.spec.scale**2
    tile_h = max(1, UNROLLED_TERMS // (terms * tile_w))
    values = sub_pixels * shape.vector_size  # of y or dy at a position
    if kernel == "dspatial":
        shared = shape.vector_size * terms if shape.has_channel else 0
        return min(tile_h, (DSPATIAL_REGISTERS - shared) // (tile_w * (terms + values)))
    if kernel == "dchannel":
        tile_h = min(tile_h, POSITION_REGISTERS // (tile_w * shape.vector_size))
        return min(tile_h, 6) if sub_pixels > 1 else tile_h  # with eight rows, float32 spilled on an H200
    if taps_h == 1:
        # A loop over taps keeps the sums of every position and the address of its spatial filter. With all taps at
        # once only the rows a filter apart are in flight.
        return min(tile_h, POSITION_REGISTERS // (tile_w * 2 * values))
    return tile_h


def _tile_w(shape: ArgShape, kernel: KernelName, width: int, taps_h: int, taps_w: int) -> int:
    """Two columns; more where nothing is kept per tap.

    In a loop over filter rows a patch spans narrow images, whose borders are then known at compile time. Otherwise
    seven columns divide the images of a ResNet; in dx they would take 255 registers, and with a stride they read twice
    the pixels.
    """
    if shape.has_channel or kernel not in ("fwd", "dx"):
        return min(2, width)
    looped = taps_h == 1
    if shape.spec.scale > 1:
        # With two, float16 spilled on an A100; with four, every dtype on an H200.
        return min(3 if kernel == "dx" and looped and taps_w > 1 else 2, width)
    if looped and width <= 7:
        return width
    if looped and kernel == "fwd" and shape.spec.stride[1] == 1 and width % 7 == 0:
        return 7
    if looped and kernel == "dx" and width >= 56:
        return min(5, width)  # with four, float16 spilled
    return min(4, width)


def _streaming_config(shape: ArgShape, block_channels: int) -> BlockConfig:
    """dfilters: patches one position wide, as tall as leaves enough programs of one warp."""
    (height, _), (taps_h, taps_w) = shape.positions, shape.spec.kernel_size
    enough = 1.5 * RESIDENT_PROGRAMS[shape.itemsize] * NUM_SMS
    config = BlockConfig(
        block_patches=_block_patches(shape, block_channels, num_warps=1),
        block_channels=block_channels,
        tile_h=height,
        tile_w=1,
        block_taps_h=taps_h,
        block_taps_w=taps_w,
        num_warps=1,
    )
    # Divisors of the height: every position of a patch then exists, which saves the registers of a mask.
    for tile_h in (height // parts for parts in range(2, height) if height % parts == 0):
        if tile_h < STREAMING_ROWS or num_programs(shape, config, "dfilters") >= enough:
            break
        config = dataclasses.replace(config, tile_h=tile_h)
    return config


def _num_splits(shape: ArgShape, config: BlockConfig) -> int:
    """Partial sums per sample: enough programs to fill a device, each with at least four steps of work."""
    blocks = shape.batch * shape.groups * num_channel_blocks(shape, config)
    return max(1, min(math.ceil(PROGRAMS_PER_DEVICE / blocks), steps_per_split(shape, config) // 4))
