"""Which cut a kernel gets: block sizes that may change the speed, never the answer.

A kernel's threads each own a *patch*: a few neighbouring positions times the channels of one 128-bit load. Within a
patch every value that is loaded is converted to float32 once and used for all the taps that see it; that is what the
sizes here trade against registers. Numbers of instructions and registers come from `pallas_kernels.aot`.
"""

import dataclasses
import functools
import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pallas_kernels.ops import device
from pallas_kernels.ops.config import (
    BlockConfig,
    Pass,
    Problem,
    channel_blocks,
    check_cut,
    programs,
    rows_in_flight,
    steps_per_chunk,
)
from pallas_kernels.ops.spec import FilterSpec

WARPS = 4
THREADS = 32 * WARPS
# float32 values that a thread keeps: of taps, of positions, and of both in the spatial cotangent. Of 255 registers the
# operands in flight and the addresses need the rest: with more than these, kernels spilled.
TAP_REGISTERS = 90
POSITION_REGISTERS = 32
SPATIAL_REGISTERS = 88
FILTERS_REGISTERS = 144  # of taps, where both filters' cotangents are computed at once
# Multiply-adds written out per program and lane; beyond it the code no longer fits the instruction cache.
UNROLLED_TERMS = 128
# Rows of a patch of DDF at least, and at most where neighbours share their rows of x: with fewer the channel filter,
# read once for each patch, costs too many instructions; with more the compiler has no registers to read ahead, and
# threads wait for what they read.
CORRELATED_ROWS = 3, 4
SUMS_PER_POSITION = 9  # of the spatial cotangent, above which a patch is one position wide
TAPS_AT_ONCE = 27  # and per program; more of them are worth a loop
MULTIPROCESSORS = 132
PROGRAMS_PER_DEVICE = 2 * MULTIPROCESSORS
# The cotangents of both filters: programs of one warp that a multiprocessor holds at once, by the bytes of x, as their
# registers allow; and the rows of a patch below which the first and the last rows of x, which few positions see, weigh
# too much.
WALKERS = {2: 8, 4: 12}
WALK_ROWS = 5
TUNED = Path(__file__).with_name("tuned")


def gradient_passes(problem: Problem) -> tuple[Pass, ...]:
    """The kernels of the backward pass: that of both filters at once, where it can be had and pays, or one for each.

    It pays where patches are tall, their programs occupy a device, and the sums of the spatial cotangent over blocks of
    channels, kept in float32, are smaller than x.
    """
    if fits_both_filters(problem):
        cut = heuristic(problem, "filters")
        blocks = channel_blocks(problem, cut)
        partial_sums = 4 * blocks * problem.spec.taps if blocks > 1 else 0  # bytes per pixel and group
        small = partial_sums <= problem.itemsize * problem.group_channels
        if small and cut.rows >= WALK_ROWS and programs(problem, cut, "filters") >= MULTIPROCESSORS:
            return "input", "filters"
    filters: tuple[tuple[Pass, bool], ...] = ("spatial", problem.has_spatial), ("channel", problem.has_channel)
    return "input", *(which for which, there in filters if there)


def fits_both_filters(problem: Problem) -> bool:
    """Whether a thread can keep the channel filter, the sums of its cotangent and the dy of the rows in flight."""
    spec = problem.spec
    if not (problem.has_spatial and problem.has_channel and spec.scale == 1 and problem.itemsize in WALKERS):
        return False
    return rows_in_flight(spec) <= 2 and 2 * problem.lanes * spec.taps <= FILTERS_REGISTERS


def choose(problem: Problem, which: Pass) -> BlockConfig:
    """The cut that was measured to be the fastest on the device in use, or else the heuristic's."""
    return measured(device.current().kind).get((problem, which)) or heuristic(problem, which)


@functools.cache
def measured(device_kind: str) -> dict[tuple[Problem, Pass], BlockConfig]:
    """What `tuner` has written for a GPU model; where that cannot be used, a warning and nothing."""
    try:
        return read_measured(device_kind)
    except ValueError as error:
        logging.getLogger(__name__).warning("%s", error)
        return {}


def read_measured(device_kind: str) -> dict[tuple[Problem, Pass], BlockConfig]:
    """What `tuner` has written for a GPU model.

    Raises:
      ValueError: the file holds something else, or cuts that the kernels cannot have.
    """
    file = tuned_file(device_kind)
    try:
        rows = json.loads(file.read_text()) if file.is_file() else []
        if not isinstance(rows, list):
            raise TypeError(f"a list was expected, got {type(rows).__name__}")
        return dict(map(_from_row, rows))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} does not hold cuts that this version can use ({type(error).__name__}: {error}). Delete it; "
            "`python -m experiments.tune` writes it anew."
        ) from error


def write_measured(device_kind: str, cuts: Mapping[tuple[Problem, Pass], BlockConfig]) -> None:
    """Joins these cuts to those of the file, where they take the place of older ones of the same kernel."""
    everything = {**read_measured(device_kind), **cuts}
    rows = [
        {"kernel": which, "problem": dataclasses.asdict(problem), "config": dataclasses.asdict(cut)}
        for (problem, which), cut in everything.items()
    ]
    file = tuned_file(device_kind)
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(rows, indent=1) + "\n")
    temporary.replace(file)  # whole or not at all
    measured.cache_clear()


def tuned_file(device_kind: str) -> Path:
    """`tuned/nvidia_h200.json` for "NVIDIA H200"."""
    return TUNED / f"{re.sub('[^a-z0-9]+', '_', device_kind.lower())}.json"


def _from_row(row: dict[str, Any]) -> tuple[tuple[Problem, Pass], BlockConfig]:
    problem = Problem(**row["problem"] | {"spec": FilterSpec(**row["problem"]["spec"])})
    cut = BlockConfig(**row["config"])
    check_cut(problem, cut, row["kernel"])
    return (problem, row["kernel"]), cut


def heuristic(problem: Problem, which: Pass) -> BlockConfig:
    """Sizes by counting registers: what a thread keeps per tap and per position must fit beside its operands."""
    channels = _block_channels(problem)
    if which == "filters":
        return _walk(problem, channels)
    tap_rows, tap_columns = _taps_at_once(problem, which)
    # In steps of how many programs fit, the compiler takes fewer registers than it needs: with four warps some spatial
    # cotangents of half precision spilled on an A100, with two some of float32.
    warps = WARPS
    if _correlates_at_once(problem, which, tap_rows) or (which == "spatial" and problem.itemsize < 4):
        warps = WARPS // 2  # and the last programs to run leave less of a device idle
    patches = 32 * warps * min(problem.lanes, channels) // channels
    rows, columns = _patch(problem, which, tap_rows, tap_columns)
    config = BlockConfig(patches, channels, rows, columns, tap_rows, tap_columns, warps)
    if which == "channel":
        config = dataclasses.replace(config, chunks=_chunks(problem, config))
    return config


def _block_channels(problem: Problem) -> int:
    """A cache line, 64 channels of bfloat16. Fewer where a group is smaller, or too many of the block would be idle."""
    group_channels, lanes = problem.group_channels, problem.lanes
    block = min(8 * lanes, 2 ** math.ceil(math.log2(group_channels)))
    while block > lanes and -group_channels % block > group_channels / 4:
        block //= 2
    return block


def _taps_at_once(problem: Problem, which: Pass) -> tuple[int, int]:
    """All taps where the values kept per tap fit the registers, else one filter row, else one tap.

    Per tap a thread keeps its channels' filter, or in the channel cotangent the sums of it, or in the spatial cotangent
    one sum per position.
    """
    spec = problem.spec
    if which == "input" and spec.stride > 1:
        return spec.kernel_size, spec.kernel_size  # which taps reach a pixel depends on the pixel: written out for each
    for tap_rows, tap_columns in ((spec.kernel_size, spec.kernel_size), (1, spec.kernel_size)):
        taps = tap_rows * tap_columns * spec.scale**2
        kept = 0
        if problem.has_channel:
            kept += problem.lanes * taps
        if which == "spatial":
            kept += taps
        if kept <= TAP_REGISTERS and taps <= TAPS_AT_ONCE:
            return tap_rows, tap_columns
    return 1, 1


def _correlates_at_once(problem: Problem, which: Pass, tap_rows: int) -> bool:
    """Whether the kernel is that of a DDF or of its x, with its whole channel filter in registers."""
    at_once = tap_rows == problem.spec.kernel_size and problem.has_channel and problem.spec.scale == 1
    return at_once and which in ("forward", "input")


def _patch(problem: Problem, which: Pass, tap_rows: int, tap_columns: int) -> tuple[int, int]:
    """As many positions as registers and code size allow: a taller patch reads fewer halos and channel filters."""
    spec, step = problem.spec, problem.spec.stride if which == "input" else 1
    height, width = (problem.height, problem.width) if which == "input" else problem.positions
    sub_pixels = spec.scale**2
    terms = tap_rows * tap_columns * sub_pixels
    correlates = which in ("forward", "input")
    columns = min(2, width)
    if correlates and spec.scale == 1 and not problem.has_channel:
        columns = _wide_patch(problem, which, width, looped=tap_rows == 1)
    elif which == "input" and not problem.has_channel and 1 == tap_rows < tap_columns:
        columns = min(3, width)  # with two, float16 spilled on an A100; with four, every dtype on an H200
    columns = step * math.ceil(columns / step)
    if (which == "spatial" and terms > SUMS_PER_POSITION) or (which == "channel" and sub_pixels > 1):
        columns = 1
    rows = max(1, UNROLLED_TERMS // (terms * columns))
    values = sub_pixels * problem.lanes  # of y or dy at a position
    if which == "spatial":
        shared = problem.lanes * terms if problem.has_channel else 0
        rows = min(rows, (SPATIAL_REGISTERS - shared) // (columns * (terms + values)))
    elif not correlates or tap_rows == 1:
        # With all taps at once only the rows a tap row apart are in flight; a loop over taps keeps the sums of every
        # position and where its spatial filter lies.
        kept = 2 * values if correlates else problem.lanes
        rows = min(rows, POSITION_REGISTERS // (columns * kept))
        if which == "channel" and sub_pixels > 1:
            rows = min(rows, 6)  # with eight, float32 spilled on an H200
    fewest = 1
    if _correlates_at_once(problem, which, tap_rows):
        fewest, most = CORRELATED_ROWS
        if problem.spec.stride == 1 and height > rows:
            rows = min(rows, most)  # neighbouring positions share their rows of x
    # Fewer rows where there are too few patches to fill a device.
    lines = problem.batch * math.ceil(width / columns) * problem.channels / (THREADS * problem.lanes)
    rows = max(1, min(rows, height, max(fewest, round(lines * height / PROGRAMS_PER_DEVICE))))
    rows = math.ceil(height / math.ceil(height / rows))  # 56 rows in sevens of eight, not in eights and a rest
    return step * math.ceil(rows / step), columns


def _wide_patch(problem: Problem, which: Pass, width: int, *, looped: bool) -> int:
    """Columns where nothing is kept per tap: four, or in a loop over filter rows what makes more of each x value.

    There a patch spans narrow images, whose borders are then known. Otherwise seven columns divide the images of a
    ResNet; in the cotangent of x as many cost 255 registers, and with a stride they see twice the pixels.
    """
    columns = 4
    if looped and width <= 7:
        columns = width
    elif looped and which == "forward" and problem.spec.stride == 1 and width % 7 == 0:
        columns = 7
    elif looped and which == "input" and width >= 56:
        columns = 5  # with four, float16 spilled
    return min(width, columns)


def _walk(problem: Problem, channels: int) -> BlockConfig:
    """For the cotangents of both filters: one column of positions, as tall as leaves enough programs of one warp."""
    height, _ = problem.positions
    taps, enough = problem.spec.kernel_size, 1.5 * WALKERS[problem.itemsize] * MULTIPROCESSORS
    config = BlockConfig(32 * min(problem.lanes, channels) // channels, channels, height, 1, taps, taps, warps=1)
    # Heights that divide the image's: whether a position exists is then known beforehand, which saves registers.
    for rows in (height // parts for parts in range(2, height) if height % parts == 0):
        if rows < WALK_ROWS or programs(problem, config, "filters") >= enough:
            break
        config = dataclasses.replace(config, rows=rows)
    return config


def _chunks(problem: Problem, config: BlockConfig) -> int:
    """Partial sums per sample: enough programs to fill a device, each with at least four steps of work."""
    blocks = problem.batch * problem.groups * channel_blocks(problem, config)
    return max(1, min(math.ceil(PROGRAMS_PER_DEVICE / blocks), steps_per_chunk(problem, config) // 4))
