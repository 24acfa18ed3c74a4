"""Kernel configs: the division of one kernel of a call into programs. A config may change the speed, not the result."""

import dataclasses
import math
from typing import Literal, get_args

import jax

from pallas_kernels.ops.implementation import Operands, Results
from pallas_kernels.ops.spec import FilterSpec

# The forward kernel, and those of the cotangents of x, spatial, channel, and of both filters at once.
KernelName = Literal["fwd", "dx", "dspatial", "dchannel", "dfilters"]

Shaped = jax.Array | jax.ShapeDtypeStruct

LOAD_BYTES = 16  # per thread: the widest load
COUNT_LIMIT = 2**31 - 1  # of programs in a grid, and of signed 32-bit numbers
MAX_WARPS = 32


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """The block sizes of one kernel. A patch is a tile of neighbouring positions.

    Args:
      block_patches: patches per program, a power of two.
      block_channels: channels per program, a power of two; all belong to one group.
      tile_h: a patch's positions along Ho (pixels along H for dx).
      tile_w: a patch's positions along Wo (pixels along W for dx).
      block_taps_h: filter rows handled at once. The kernel handles K×K taps, or loops over 1×K or 1×1.
      block_taps_w: filter columns handled at once.
      num_warps: warps per program.
      num_splits: programs that share a sample in dchannel. Their partial sums are added in order.
    """

    block_patches: int
    block_channels: int
    tile_h: int
    tile_w: int
    block_taps_h: int
    block_taps_w: int
    num_warps: int
    num_splits: int = 1

    def loops_over_taps(self, spec: FilterSpec) -> bool:
        """Whether the taps do not all fit one block."""
        return (self.block_taps_h, self.block_taps_w) != spec.kernel_size


@dataclasses.dataclass(frozen=True)
class ArgShape:
    """The sizes that a kernel config depends on.

    Args:
      spec: the static options of the operator.
      batch: B.
      height: H of x.
      width: W of x.
      channels: C.
      groups: G; 1 without a spatial filter.
      itemsize: bytes per element of x.
      has_spatial: whether there is a spatial filter.
      has_channel: whether there is a channel filter.
    """

    spec: FilterSpec
    batch: int
    height: int
    width: int
    channels: int
    groups: int
    itemsize: int
    has_spatial: bool
    has_channel: bool

    @classmethod
    def of(cls, x: Shaped, spatial: Shaped | None, channel: Shaped | None, spec: FilterSpec) -> "ArgShape":
        """The sizes of a call with arrays of these shapes, given, wanted or both."""
        batch, height, width, channels = x.shape
        return cls(
            spec=spec,
            batch=batch,
            height=height,
            width=width,
            channels=channels,
            groups=1 if spatial is None else spatial.shape[-2],
            itemsize=x.dtype.itemsize,
            has_spatial=spatial is not None,
            has_channel=channel is not None,
        )

    @classmethod
    def of_backward(cls, operands: Operands, results: Results, spec: FilterSpec) -> "ArgShape":
        """The sizes of a backward pass: of the arrays that are given or wanted."""
        x, spatial, channel = (
            results.get(name) if given is None else given
            for name, given in (("x", operands.x), ("spatial", operands.spatial), ("channel", operands.channel))
        )
        assert x is not None
        return cls.of(x, spatial, channel, spec)

    @property
    def vector_size(self) -> int:
        """Channels per thread: one load of the widest kind."""
        return LOAD_BYTES // self.itemsize

    @property
    def group_channels(self) -> int:
        """C / G."""
        return self.channels // self.groups

    @property
    def positions(self) -> tuple[int, int]:
        """Ho, Wo."""
        return self.spec.grid((self.height, self.width))

    def tiled_size(self, kernel: KernelName) -> tuple[int, int]:
        """The size that a kernel's patches tile: H, W for dx, otherwise Ho, Wo."""
        return (self.height, self.width) if kernel == "dx" else self.positions

    def tile_step(self, kernel: KernelName) -> tuple[int, int]:
        """`tile_h` and `tile_w` must be multiples of these: a patch of dx starts at a multiple of the stride."""
        return self.spec.stride if kernel == "dx" else (1, 1)


def validate_config(shape: ArgShape, config: BlockConfig, kernel: KernelName) -> None:
    """Checks that the kernel computes the right values with this config.

    Raises:
      ValueError: it would compute wrong values, or not run.
    """
    kernel_size, step = shape.spec.kernel_size, shape.tile_step(kernel)
    whole = kernel == "dfilters" or step != (1, 1)
    tap_sizes = [[n for n in range(size if whole else 1, size + 1) if size % n == 0] for size in kernel_size]
    powers = (config.block_patches, config.block_channels, config.num_warps)
    rules = {
        f"`kernel` must be one of {get_args(KernelName)}": kernel in get_args(KernelName),
        "`block_patches`, `block_channels` and `num_warps` must be powers of two": all(
            n > 0 and n & (n - 1) == 0 for n in powers
        ),
        f"`tile_h` and `tile_w` must be multiples of {step}, and not 0": all(
            n > 0 and n % multiple == 0 for n, multiple in zip((config.tile_h, config.tile_w), step, strict=True)
        ),
        f"`block_taps_h` and `block_taps_w` must be among {tap_sizes}": all(
            n in sizes for n, sizes in zip((config.block_taps_h, config.block_taps_w), tap_sizes, strict=True)
        ),
        f"`num_warps` must be at most {MAX_WARPS}": config.num_warps <= MAX_WARPS,
        "`num_splits` must be at least 1": config.num_splits >= 1,
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(f"{rule}, got {config} for the {kernel} kernel of {shape}.")


def validate_launch(shape: ArgShape, config: BlockConfig, kernel: KernelName) -> None:
    """Checks that a device can run the launch, and that 32 bits count everything the kernel counts.

    Arrays may be larger than 2^31 elements: their addresses have 64 bits where they need them. Pixels may not.

    Raises:
      ValueError: the config does not fit the kernel.
      NotImplementedError: a count exceeds 32 bits.
    """
    validate_config(shape, config, kernel)
    spec, (rows, columns) = shape.spec, shape.positions
    parts = {"dchannel": config.num_splits, "dfilters": programs_per_sample(shape, config)}.get(kernel, 1)
    counts = {
        "pixels": shape.batch * max(shape.height * shape.width, spec.scale**2 * rows * columns),
        "rows of channel filters": shape.batch * parts * spec.scale**2 * spec.taps if shape.has_channel else 0,
        "programs": num_programs(shape, config, kernel),
        "pixels that a filter spans": spec.span[0] * spec.scale * shape.width + spec.span[1],
    }
    for what, count in counts.items():
        if count > COUNT_LIMIT:
            raise NotImplementedError(
                f"The Triton kernels count in 32 bits: expected at most {COUNT_LIMIT} {what}, got {count} for "
                f"{shape}. Split the batch, or use implementation='xla'."
            )


def num_programs(shape: ArgShape, config: BlockConfig, kernel: KernelName) -> int:
    """The size of the launch grid."""
    blocks = shape.groups * num_channel_blocks(shape, config)
    if kernel == "dfilters":
        return shape.batch * programs_per_sample(shape, config) * blocks
    if kernel == "dchannel":
        return shape.batch * config.num_splits * blocks
    if kernel == "dspatial":
        blocks = shape.groups
    rows, columns = num_patches(config, shape.tiled_size(kernel))
    return math.ceil(shape.batch * rows * columns / config.block_patches) * blocks


def num_patches(config: BlockConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Patches that tile a size, along both axes."""
    return -(-size[0] // config.tile_h), -(-size[1] // config.tile_w)


def num_channel_blocks(shape: ArgShape, config: BlockConfig) -> int:
    """Blocks of channels in a group."""
    return math.ceil(shape.group_channels / config.block_channels)


def programs_per_sample(shape: ArgShape, config: BlockConfig) -> int:
    """Programs that share the positions of a sample, `block_patches` patches each."""
    return math.ceil(math.prod(num_patches(config, shape.positions)) / config.block_patches)


def steps_per_split(shape: ArgShape, config: BlockConfig) -> int:
    """Iterations of a dchannel program, `block_patches` patches each."""
    return math.ceil(programs_per_sample(shape, config) / config.num_splits)


def rows_in_flight(spec: FilterSpec) -> int:
    """Rows of positions below a position that read a row of x which that position reads too."""
    return spec.span[0] // spec.stride[0]


def loop_trips(shape: ArgShape, config: BlockConfig, kernel: KernelName) -> tuple[int, ...]:
    """Iterations of a kernel's nested loops, outermost first, without those that run once."""
    rows, columns = shape.spec.kernel_size
    if kernel == "dfilters":
        steps = config.tile_h - rows_in_flight(shape.spec)
        return (steps,) if steps > 1 else ()
    taps = (rows // config.block_taps_h) * (columns // config.block_taps_w)
    inner = 1
    if kernel == "dspatial":
        inner = num_channel_blocks(shape, config)
    if kernel == "dchannel":
        inner = steps_per_split(shape, config)
    return tuple(trips for trips in (taps, inner) if trips > 1)


def outputs_per_program(shape: ArgShape, config: BlockConfig, kernel: KernelName) -> int:
    """Elements of y (of x for dx) that a program with full blocks computes."""
    positions = config.block_patches * config.tile_h * config.tile_w
    if kernel == "dx":
        return positions * config.block_channels
    if kernel == "dspatial":
        return positions * shape.spec.scale**2 * shape.group_channels
    steps = steps_per_split(shape, config) if kernel == "dchannel" else 1
    return positions * shape.spec.scale**2 * config.block_channels * steps
