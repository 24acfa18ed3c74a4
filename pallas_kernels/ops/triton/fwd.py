"""The forward kernel, and the launch that all kernels share.

A thread owns a patch of neighbouring positions times the channels of one load and streams down it. Each x value is read
from the cache and converted to float32 once per patch, then multiplied for every tap and sub-pixel that reads it. The
channel filter stays in registers where it fits. Instructions bound the kernel on a GPU, not loads: per output and tap
one product of the filters and one multiply-add are the arithmetic itself; the patch shares the rest.
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
from pallas_kernels.ops.autotune import choose_config
from pallas_kernels.ops.config import (
    ArgShape,
    BlockConfig,
    KernelName,
    num_channel_blocks,
    num_patches,
    num_programs,
    validate_launch,
)
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
    """y by the forward kernel; shapes as in `vjp.Implementation`. `config` defaults to `choose_config`'s."""
    shape = ArgShape.of(x, spatial, channel, spec)
    config = config or choose_config(shape, "fwd")
    rows, columns = shape.positions
    pixels = spec.scale**2 * shape.batch * rows * columns
    y = launch(
        _fwd_kernel,
        pixel_rows(x, spatial, channel),
        compat.kernel_output((pixels, shape.channels), x.dtype, x),
        kernel="fwd",
        shape=shape,
        config=config,
        interpret=interpret,
    )
    return y.reshape(shape.batch, spec.scale * rows, spec.scale * columns, shape.channels)


def launch(
    body: Callable,
    arrays: Sequence[Array | None],
    output: Any,
    *,
    kernel: KernelName,
    shape: ArgShape,
    config: BlockConfig,
    interpret: bool,
) -> Any:
    """Runs a kernel body on these arrays, with None in place of a missing one.

    Raises:
      ValueError: the config does not fit the kernel.
      NotImplementedError: a dtype that Triton lacks, or more than 32 bits count.
    """
    for array in arrays:
        if array is not None and array.dtype not in DTYPES:
            raise NotImplementedError(
                f"The Triton kernels take float32, bfloat16 and float16, got {array.dtype}; use implementation='xla'."
            )
    validate_launch(shape, config, kernel)
    present = [array is not None for array in arrays]

    def with_missing(*refs):
        inputs = iter(refs)
        operands = [next(inputs) if there else None for there in present]
        body(*operands, *inputs, shape=shape, config=config, memory=Memory(interpret))

    name = f"dynamic_filter_{kernel}"
    with_missing.__name__ = name  # the profiler shows it
    return pl.pallas_call(
        with_missing,
        out_shape=output,
        grid=(num_programs(shape, config, kernel),),
        compiler_params=plgpu.CompilerParams(num_warps=config.num_warps, num_stages=1),
        interpret=interpret,
        name=name,
    )(*(array for array in arrays if array is not None))


def pixel_rows(x: Array, spatial: Array | None, channel: Array | None) -> tuple[Array, Array | None, Array | None]:
    """The arrays as the kernels take them: x [B·H·W, C], spatial [B·Ho·Wo, S²·G·T], channel [B·S²·T, C]."""
    x = x.reshape(-1, x.shape[-1])
    spatial = None if spatial is None else spatial.reshape(-1, math.prod(spatial.shape[3:]))
    return x, spatial, None if channel is None else channel.reshape(-1, channel.shape[-1])


def tile(shape: ArgShape, config: BlockConfig, size: tuple[int, int]) -> tuple[Patches, Channels]:
    """The patches and channels of this program; programs of the same patches are neighbours."""
    blocks = shape.groups * num_channel_blocks(shape, config)
    program = pl.program_id(0).astype(jnp.uint32)
    number = program // blocks * config.block_patches + lax.iota(jnp.uint32, config.block_patches)[:, None]
    patches = Patches.numbered(number, shape.batch, num_patches(config, size))
    return patches, Channels.block(program % blocks, config.block_channels, shape.channels, shape.groups)


def for_taps(spec: FilterSpec, config: BlockConfig, body: Callable, carry):
    """carry = body(taps, carry) for each block of taps."""
    sizes = (config.block_taps_h, config.block_taps_w)
    along_rows, along_columns = (spec.kernel_size // size for size in sizes)
    if along_rows * along_columns == 1:
        return body(Taps(0, 0, *sizes, spec), carry)

    def block(i: Array, carry):
        first = lax.div(i, jnp.int32(along_columns)), lax.rem(i, jnp.int32(along_columns))
        return body(Taps(*first, *sizes, spec), carry)

    return lax.fori_loop(0, along_rows * along_columns, block, carry)


def pixel_readers(positions: int, taps: int, stride: int, dilation: int) -> dict[int, list[tuple[int, int]]]:
    """The (position, tap) pairs that read each input pixel, by its offset in the patch in increasing order."""
    found: dict[int, list[tuple[int, int]]] = {}
    for position, tap in itertools.product(range(positions), range(taps)):
        found.setdefault(stride * position + dilation * tap, []).append((position, tap))
    return dict(sorted(found.items()))


def filter_loads(
    s_ref, c_ref, taps: Taps, *, shape: ArgShape, patches: Patches, channels: Channels, memory: Memory
) -> tuple[Callable, Callable]:
    """Returns s(position, inside, sub, i, j) [P, 1] and c(sub, i, j) [P, C'], float32. Each c is loaded once."""
    spec = shape.spec

    def s(position: Array, inside: Array | None, sub: int, i: int, j: int) -> Array | None:
        if s_ref is None:
            return None
        # The groups lie between the sub-pixels and the taps.
        skipped = (sub * (shape.groups - 1) + channels.group) * spec.taps
        return memory.load(s_ref, (position, shifted(skipped, taps.number(sub, i, j))), inside)

    @cache
    def c(sub: int, i: int, j: int) -> Array | None:
        if c_ref is None:
            return None
        row = shifted(patches.sample * (spec.scale**2 * spec.taps), taps.number(sub, i, j))
        return memory.load(c_ref, (row, channels.numbers), channels.live)

    return s, c


def combine(s: Array | None, c: Array | None, spec: FilterSpec) -> Array:
    """The filter of one tap, float32."""
    if s is None:
        assert c is not None  # the operator has at least one filter
        return c
    if c is None:
        return s
    return s * c if spec.combine == "mul" else s + c


def zeros(config: BlockConfig) -> Array:
    """The initial sums of each patch and channel."""
    return jnp.zeros((config.block_patches, config.block_channels), jnp.float32)


def _fwd_kernel(x_ref, s_ref, c_ref, y_ref, *, shape: ArgShape, config: BlockConfig, memory: Memory):
    spec, scale, (height, width) = shape.spec, shape.spec.scale, shape.positions
    patches, channels = tile(shape, config, (height, width))
    step = (config.tile_h, config.tile_w)
    s_image = patches.image(step, (height, width))
    x_image = patches.image((spec.stride * step[0], spec.stride * step[1]), (shape.height, shape.width))
    y_image = patches.image((scale * step[0], scale * step[1]), (scale * height, scale * width))
    row_readers = pixel_readers(config.tile_h, config.block_taps_h, spec.stride, spec.dilation)
    column_readers = pixel_readers(config.tile_w, config.block_taps_w, spec.stride, spec.dilation)
    last_read = {r: offset for offset, pairs in row_readers.items() for r, _ in pairs}
    looped = (config.block_taps_h, config.block_taps_w) != (spec.kernel_size, spec.kernel_size)

    def store(r: int, sums: dict):
        """One row of the patch, without positions beyond the image. Spare patches repeat the last one's writes."""
        for q, (i, j) in itertools.product(range(config.tile_w), itertools.product(range(scale), repeat=2)):
            index, inside = y_image.at(scale * r + i, scale * q + j)
            memory.store(y_ref, (index, channels.numbers), sums[r, q, scale * i + j], inside, channels.live)

    def add_taps(taps: Taps, sums: dict) -> dict:
        s, c = filter_loads(s_ref, c_ref, taps, shape=shape, patches=patches, channels=channels, memory=memory)
        sums, (row_shift, column_shift) = dict(sums), taps.offset
        for row, row_pairs in row_readers.items():
            for column, column_pairs in column_readers.items():
                index, inside = x_image.at(row + row_shift, column + column_shift)
                x = memory.load(x_ref, (index, channels.numbers), inside, channels.live)
                for (r, i), (q, j), sub in itertools.product(row_pairs, column_pairs, range(scale**2)):
                    term = x * combine(s(s_image.clamped(r, q), None, sub, i, j), c(sub, i, j), spec)
                    sums[r, q, sub] = sums[r, q, sub] + term if (r, q, sub) in sums else term
            for r in [] if looped else [r for r, last in last_read.items() if last == row]:
                store(r, sums)  # early, so that only the rows in flight take registers
        return sums

    keys = itertools.product(range(config.tile_h), range(config.tile_w), range(scale**2))
    sums = for_taps(spec, config, add_taps, dict.fromkeys(keys, zeros(config)) if looped else {})
    for r in range(config.tile_h) if looped else []:
        store(r, sums)
