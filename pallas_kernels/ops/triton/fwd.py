"""The operator as Pallas:Triton kernels, for NVIDIA GPUs from Ampere on: this file holds the forward pass.

A thread owns a patch of neighbouring positions times the channels of one load and walks down it. Each x value is read
from the cache and converted to float32 once per patch, then meets every tap and every sub-pixel that sees it; the
channel filter stays in registers where it fits. What bounds the kernel on a GPU is its instructions, not its loads: per
output and tap one product of the filters and one multiply-add are the arithmetic itself, the rest the patch shares.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels import compat
from pallas_kernels.ops.config import BlockConfig, Pass, Problem, channel_blocks, check_launch, programs
from pallas_kernels.ops.heuristics import choose
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton.tiles import Channels, Memory, Patches, Taps, shifted

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


def forward(
    x: Array,
    spatial: Array | None,
    channel: Array | None,
    spec: FilterSpec,
    *,
    config: BlockConfig | None = None,
    interpret: bool = False,
) -> Array:
    problem = Problem.of(x, spatial, channel, spec)
    config = config or choose(problem, "forward")
    rows, columns = problem.positions
    pixels = spec.scale**2 * problem.batch * rows * columns
    y = launch(
        _forward_kernel,
        "dynamic_filter_forward",
        pixel_rows(x, spatial, channel),
        compat.kernel_output((pixels, problem.channels), x.dtype, x),
        problem,
        config,
        "forward",
        interpret,
    )
    return y.reshape(problem.batch, spec.scale * rows, spec.scale * columns, problem.channels)


def launch(
    kernel: Callable,
    name: str,
    arrays: Sequence[Array | None],
    output: Any,
    problem: Problem,
    config: BlockConfig,
    which: Pass,
    interpret: bool,
) -> Any:
    """Runs a kernel over all its programs. A None among the arrays reaches the kernel as None.

    Args:
      output: what it writes, or several.

    Raises:
      NotImplementedError: a dtype the kernels do not have, or a launch the device cannot do.
    """
    for array in arrays:
        if array is not None and array.dtype not in DTYPES:
            raise NotImplementedError(
                f"The Triton kernels take float32, bfloat16 and float16, got {array.dtype}; use implementation='xla'."
            )
    check_launch(problem, config, which)
    present = [array is not None for array in arrays]

    def body(*refs):
        inputs = iter(refs)
        operands = [next(inputs) if there else None for there in present]
        kernel(*operands, *inputs, problem=problem, config=config, memory=Memory(interpret))

    body.__name__ = name  # the profiler shows it
    return pl.pallas_call(
        body,
        out_shape=output,
        grid=(programs(problem, config, which),),
        compiler_params=plgpu.CompilerParams(num_warps=config.warps, num_stages=1),
        interpret=interpret,
        name=name,
    )(*(array for array in arrays if array is not None))


def pixel_rows(x: Array, spatial: Array | None, channel: Array | None) -> tuple[Array, Array | None, Array | None]:
    """How the kernels see the arrays: x [B·H·W, C], spatial [B·Ho·Wo, S²·G·T], channel [B·S²·T, C]."""
    x = x.reshape(-1, x.shape[-1])
    spatial = None if spatial is None else spatial.reshape(-1, math.prod(spatial.shape[3:]))
    return x, spatial, None if channel is None else channel.reshape(-1, channel.shape[-1])


def tile(problem: Problem, config: BlockConfig, size: tuple[int, int]) -> tuple[Patches, Channels]:
    """The patches and channels of this program; programs of the same patches are neighbours."""
    blocks = problem.groups * channel_blocks(problem, config)
    program = pl.program_id(0).astype(jnp.uint32)
    number = program // blocks * config.patches + lax.iota(jnp.uint32, config.patches)[:, None]
    patches = Patches.numbered(number, problem.batch, patch_count(config, size))
    return patches, Channels.block(program % blocks, config.channels, problem.channels, problem.groups)


def patch_count(config: BlockConfig, size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // config.rows), -(-size[1] // config.columns)


def for_taps(spec: FilterSpec, config: BlockConfig, body: Callable, carry):
    """carry = body(taps, carry) for each block of taps that is handled at once."""
    sizes = (config.tap_rows, config.tap_columns)
    along_rows, along_columns = (spec.kernel_size // size for size in sizes)
    if along_rows * along_columns == 1:
        return body(Taps(0, 0, *sizes, spec), carry)

    def block(i: Array, carry):
        first = lax.div(i, jnp.int32(along_columns)), lax.rem(i, jnp.int32(along_columns))
        return body(Taps(*first, *sizes, spec), carry)

    return lax.fori_loop(0, along_rows * along_columns, block, carry)


def uses(positions: int, taps: int, stride: int, dilation: int) -> dict[int, list[tuple[int, int]]]:
    """Who sees a pixel: {its offset in the patch: [(position, tap), …]}, by increasing offset."""
    found: dict[int, list[tuple[int, int]]] = {}
    for position, tap in itertools.product(range(positions), range(taps)):
        found.setdefault(stride * position + dilation * tap, []).append((position, tap))
    return dict(sorted(found.items()))


def filter_loads(s_ref, c_ref, problem: Problem, patches: Patches, channels: Channels, taps: Taps, memory: Memory):
    """s(position, inside, sub, i, j) [P, 1] and c(sub, i, j) [P, C'], float32; each value of c is loaded once."""
    spec = problem.spec

    def s(position: Array, inside: Array | None, sub: int, i: int, j: int) -> Array | None:
        if s_ref is None:
            return None
        # The groups lie between the sub-pixels and the taps.
        skipped = (sub * (problem.groups - 1) + channels.group) * spec.taps
        return memory.load(s_ref, (position, shifted(skipped, taps.number(sub, i, j))), inside)

    @cache
    def c(sub: int, i: int, j: int) -> Array | None:
        if c_ref is None:
            return None
        row = shifted(patches.sample * (spec.scale**2 * spec.taps), taps.number(sub, i, j))
        return memory.load(c_ref, (row, channels.index), channels.live)

    return s, c


def combine(s: Array | None, c: Array | None, spec: FilterSpec) -> Array:
    """The filter of one tap: both are float32."""
    if s is None:
        assert c is not None  # the operator has at least one filter
        return c
    if c is None:
        return s
    return s * c if spec.combine == "mul" else s + c


def zeros(config: BlockConfig) -> Array:
    """Sums of each patch and channel, before anything is added."""
    return jnp.zeros((config.patches, config.channels), jnp.float32)


def _forward_kernel(x_ref, s_ref, c_ref, y_ref, *, problem: Problem, config: BlockConfig, memory: Memory):
    spec, scale, (height, width) = problem.spec, problem.spec.scale, problem.positions
    patches, channels = tile(problem, config, (height, width))
    step = (config.rows, config.columns)
    s_image = patches.image(step, (height, width))
    x_image = patches.image((spec.stride * step[0], spec.stride * step[1]), (problem.height, problem.width))
    y_image = patches.image((scale * step[0], scale * step[1]), (scale * height, scale * width))
    row_uses = uses(config.rows, config.tap_rows, spec.stride, spec.dilation)
    column_uses = uses(config.columns, config.tap_columns, spec.stride, spec.dilation)
    last_use = {r: offset for offset, seen_by in row_uses.items() for r, _ in seen_by}
    looped = (config.tap_rows, config.tap_columns) != (spec.kernel_size, spec.kernel_size)

    def store(r: int, sums: dict):
        """One row of the patch, without what lies beyond the image. Spare patches write what the last one writes."""
        for q, (i, j) in itertools.product(range(config.columns), itertools.product(range(scale), repeat=2)):
            index, inside = y_image.at(scale * r + i, scale * q + j)
            memory.store(y_ref, (index, channels.index), sums[r, q, scale * i + j], inside, channels.live)

    def add_taps(taps: Taps, sums: dict) -> dict:
        s, c = filter_loads(s_ref, c_ref, problem, patches, channels, taps, memory)
        sums, (row_shift, column_shift) = dict(sums), taps.offset
        for row, seen_by_rows in row_uses.items():
            for column, seen_by_columns in column_uses.items():
                index, inside = x_image.at(row + row_shift, column + column_shift)
                x = memory.load(x_ref, (index, channels.index), inside, channels.live)
                for (r, i), (q, j), sub in itertools.product(seen_by_rows, seen_by_columns, range(scale**2)):
                    term = x * combine(s(s_image.clamped(r, q), None, sub, i, j), c(sub, i, j), spec)
                    sums[r, q, sub] = sums[r, q, sub] + term if (r, q, sub) in sums else term
            for r in [] if looped else [r for r, last in last_use.items() if last == row]:
                store(r, sums)  # early, so that only the rows in flight take up registers
        return sums

    keys = itertools.product(range(config.rows), range(config.columns), range(scale**2))
    sums = for_taps(spec, config, add_taps, dict.fromkeys(keys, zeros(config)) if looped else {})
    for r in range(config.rows) if looped else []:
        store(r, sums)
