"""One kernel's problem, how it is cut into programs, and what follows from the two by counting."""

import dataclasses
import math
from typing import Literal, get_args

import jax

from pallas_kernels.ops.spec import FilterSpec

Shaped = jax.Array | jax.ShapeDtypeStruct
# y, or the cotangent of x, spatial, channel, or of both filters at once
Pass = Literal["forward", "input", "spatial", "channel", "filters"]

LOAD_BYTES = 16  # of a thread at once: the widest load there is
COUNT_LIMIT = 2**31 - 1  # of programs in a grid, and of what signed numbers can count
WARPS_LIMIT = 32


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """The cut of one kernel."""

    patches: int  # patches per program, a power of two
    channels: int  # channels per program, a power of two; never of two groups
    rows: int  # a patch's positions along Ho (along H for the cotangent of x)
    columns: int  # a patch's positions along Wo (along W)
    tap_rows: int  # filter rows and columns handled at once: K×K, a loop over 1×K, or a loop over 1×1
    tap_columns: int
    warps: int
    chunks: int = 1  # programs that share a sample in the channel cotangent; their partial sums are added in order


@dataclasses.dataclass(frozen=True)
class Problem:
    """The sizes a cut depends on."""

    spec: FilterSpec
    batch: int
    height: int
    width: int
    channels: int
    groups: int
    itemsize: int  # of x, in bytes
    has_spatial: bool
    has_channel: bool

    @classmethod
    def of(cls, x: Shaped, spatial: Shaped | None, channel: Shaped | None, spec: FilterSpec) -> "Problem":
        groups = 1 if spatial is None else spatial.shape[-2]
        batch, height, width, channels = x.shape
        has_filters = spatial is not None, channel is not None
        return cls(spec, batch, height, width, channels, groups, x.dtype.itemsize, *has_filters)

    @property
    def lanes(self) -> int:
        """Channels per thread."""
        return LOAD_BYTES // self.itemsize

    @property
    def group_channels(self) -> int:
        return self.channels // self.groups

    @property
    def positions(self) -> tuple[int, int]:
        """Ho, Wo."""
        return self.spec.grid_size(self.height), self.spec.grid_size(self.width)


def programs(problem: Problem, config: BlockConfig, which: Pass) -> int:
    """How many programs the kernel is launched with."""
    height, width = (problem.height, problem.width) if which == "input" else problem.positions
    patches = math.ceil(height / config.rows) * math.ceil(width / config.columns)
    blocks = problem.groups * channel_blocks(problem, config)
    if which == "filters":
        return problem.batch * parts_of_sample(problem, config) * blocks
    if which == "channel":
        return problem.batch * config.chunks * blocks
    if which == "spatial":
        blocks = problem.groups
    return math.ceil(problem.batch * patches / config.patches) * blocks


def check_launch(problem: Problem, config: BlockConfig, which: Pass) -> None:
    """Refuses a launch that no device can run, or that would count past 32 bits.

    Arrays may be larger than 2^31 elements: their addresses have 64 bits where they need them. Pixels may not.

    Raises:
      ValueError: the kernel cannot be cut so.
      NotImplementedError: there is more than can be counted.
    """
    check_cut(problem, config, which)
    spec, (rows, columns) = problem.spec, problem.positions
    parts = {"channel": config.chunks, "filters": parts_of_sample(problem, config)}.get(which, 1)
    counts = {
        "pixels": problem.batch * max(problem.height * problem.width, spec.scale**2 * rows * columns),
        "rows of channel filters": problem.batch * parts * spec.scale**2 * spec.taps if problem.has_channel else 0,
        "programs": programs(problem, config, which),
        "pixels that a filter spans": 2 * spec.reach * (spec.scale * problem.width + 1),
    }
    for what, count in counts.items():
        if count > COUNT_LIMIT:
            raise NotImplementedError(
                f"The Triton kernels count in 32 bits: expected at most {COUNT_LIMIT} {what}, got {count} for "
                f"{problem}. Split the batch, or use implementation='xla'."
            )


def check_cut(problem: Problem, config: BlockConfig, which: Pass) -> None:
    """Raises `ValueError` where the kernel cannot be cut so: it would give wrong values, or not run."""
    kernel_size, stride = problem.spec.kernel_size, problem.spec.stride
    step = stride if which == "input" else 1
    tap_sizes = (
        {kernel_size}
        if which == "filters" or step > 1
        else {n for n in range(1, kernel_size + 1) if kernel_size % n == 0}
    )
    rules = {
        f"`kernel` must be one of {get_args(Pass)}": which in get_args(Pass),
        "`patches`, `channels` and `warps` must be powers of two": all(
            n > 0 and n & (n - 1) == 0 for n in (config.patches, config.channels, config.warps)
        ),
        f"`rows` and `columns` must be multiples of {step}, and not 0": all(
            n > 0 and n % step == 0 for n in (config.rows, config.columns)
        ),
        f"`tap_rows` and `tap_columns` must be among {sorted(tap_sizes)}": {config.tap_rows, config.tap_columns}
        <= tap_sizes,
        f"`warps` must be at most {WARPS_LIMIT}": config.warps <= WARPS_LIMIT,
        "`chunks` must be at least 1": config.chunks >= 1,
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(f"{rule}, got the {which} kernel's {config} for {problem}.")


def channel_blocks(problem: Problem, config: BlockConfig) -> int:
    """Blocks of channels in a group."""
    return math.ceil(problem.group_channels / config.channels)


def parts_of_sample(problem: Problem, config: BlockConfig) -> int:
    """Programs that share the positions of a sample, `patches` patches for each."""
    rows, columns = problem.positions
    return math.ceil(math.ceil(rows / config.rows) * math.ceil(columns / config.columns) / config.patches)


def steps_per_chunk(problem: Problem, config: BlockConfig) -> int:
    """Loads of `patches` patches that a program of the channel cotangent goes through."""
    return math.ceil(parts_of_sample(problem, config) / config.chunks)


def loop_trips(problem: Problem, config: BlockConfig, which: Pass) -> tuple[int, ...]:
    """How often the loops of a kernel run, outermost first; one that runs once is not there."""
    kernel_size = problem.spec.kernel_size
    if which == "filters":
        steps = config.rows - rows_in_flight(problem.spec)
        return (steps,) if steps > 1 else ()
    taps = (kernel_size // config.tap_rows) * (kernel_size // config.tap_columns)
    inner = 1
    if which == "spatial":
        inner = channel_blocks(problem, config)
    if which == "channel":
        inner = steps_per_chunk(problem, config)
    return tuple(trips for trips in (taps, inner) if trips > 1)


def outputs_per_program(problem: Problem, config: BlockConfig, which: Pass) -> int:
    """Elements of y (of x for its cotangent) that a program with full blocks works through."""
    positions = config.patches * config.rows * config.columns
    if which == "input":
        return positions * config.channels
    if which == "spatial":
        return positions * problem.spec.scale**2 * problem.group_channels
    steps = steps_per_chunk(problem, config) if which == "channel" else 1
    return positions * problem.spec.scale**2 * config.channels * steps


def rows_in_flight(spec: FilterSpec) -> int:
    """Rows of positions below a position that see a row of x which it sees too."""
    return 2 * spec.reach // spec.stride
