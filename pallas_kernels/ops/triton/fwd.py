"""The forward kernel, and the launch that all kernels share.

A thread owns a patch of neighbouring positions times the channels of one load and streams down it. Each x value is read
from the cache and converted to float32 once per patch, then multiplied for every tap and sub-pixel that reads it. The
channel filter stays in registers where it fits. Instructions bound the kernel on a GPU, not loads: per output and tap
one product of the filters and one multiply-add are the arithmetic itself; the patch shares the rest.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
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
from pallas_kernels.ops.triton.filters import combine, filter_loads, scaled
from pallas_kernels.ops.triton.normalization import statistics
from pallas_kernels.ops.triton.tiles import Channels, Memory, Patches, Taps

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)

Readers = dict[int, list[tuple[int, int]]]


def forward(
    x: Array,
    spatial: Array | None,
    channel: Array | None,
    spec: FilterSpec,
    dtype: Any = None,
    *,
    config: BlockConfig | None = None,
    interpret: bool = False,
) -> Array:
    """y by the forward kernel, as in `implementation.Implementation`. `config` defaults to `choose_config`'s."""
    shape = ArgShape.of(x, spatial, channel, spec)
    config = config or choose_config(shape, "fwd")
    rows, columns = shape.positions
    pixels = spec.scale**2 * shape.batch * rows * columns
    x_rows, spatial_rows, channel_rows = pixel_rows(x, spatial, channel)
    found = None if spatial is None or spec.normalize is None else statistics(spatial, spec, interpret=interpret)
    y = launch(
        _fwd_kernel,
        (x_rows, spatial_rows, found, channel_rows),
        jax.ShapeDtypeStruct((pixels, shape.channels), dtype or x.dtype),
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
    name: str | None = None,
) -> Any:
    """Runs a kernel body on these arrays, with None in place of a missing one.

    Args:
      kernel: whose config and grid it has.
      name: in the profiler.

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

    inputs = [array for array in arrays if array is not None]
    name = name or f"dynamic_filter_{kernel}"
    with_missing.__name__ = name  # the profiler shows it
    return pl.pallas_call(
        with_missing,
        out_shape=jax.tree.map(lambda struct: compat.kernel_output(struct, inputs[0]), output),
        grid=(num_programs(shape, config, kernel),),
        compiler_params=plgpu.CompilerParams(num_warps=config.num_warps, num_stages=1),
        interpret=interpret,
        name=name,
    )(*inputs)


def pixel_rows(
    x: Array | None, spatial: Array | None, channel: Array | None
) -> tuple[Array | None, Array | None, Array | None]:
    """The arrays as the kernels take them: x [B·H·W, C], spatial [B·Ho·Wo, S²·G·T], channel [B·S²·T, C]."""
    x = None if x is None else x.reshape(-1, x.shape[-1])
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
    along_rows, along_columns = (taps // size for taps, size in zip(spec.kernel_size, sizes, strict=True))
    if along_rows * along_columns == 1:
        return body(Taps(0, 0, *sizes, spec), carry)

    def block(i: Array, carry):
        first = lax.div(i, jnp.int32(along_columns)), lax.rem(i, jnp.int32(along_columns))
        return body(Taps(*first, *sizes, spec), carry)

    return lax.fori_loop(0, along_rows * along_columns, block, carry)


def pixel_readers(positions: int, taps: int, stride: int, dilation: int) -> Readers:
    """The (position, tap) pairs that read each input pixel, by its offset in the patch in increasing order."""
    found: dict[int, list[tuple[int, int]]] = {}
    for position, tap in itertools.product(range(positions), range(taps)):
        found.setdefault(stride * position + dilation * tap, []).append((position, tap))
    return dict(sorted(found.items()))


def patch_readers(config: BlockConfig, spec: FilterSpec) -> tuple[Readers, Readers]:
    """The readers of each input row, and of each input column, of a patch and a block of taps."""
    rows = pixel_readers(config.tile_h, config.block_taps_h, spec.stride[0], spec.dilation[0])
    return rows, pixel_readers(config.tile_w, config.block_taps_w, spec.stride[1], spec.dilation[1])


def zeros(config: BlockConfig) -> Array:
    """The initial sums of each patch and channel."""
    return jnp.zeros((config.block_patches, config.block_channels), jnp.float32)


def _fwd_kernel(x_ref, s_ref, n_ref, c_ref, y_ref, *, shape: ArgShape, config: BlockConfig, memory: Memory):
    spec, scale, (height, width) = shape.spec, shape.spec.scale, shape.positions
    patches, channels = tile(shape, config, (height, width))
    step = (config.tile_h, config.tile_w)
    s_image = patches.image(step, (height, width))
    x_image = patches.image((spec.stride[0] * step[0], spec.stride[1] * step[1]), (shape.height, shape.width))
    y_image = patches.image((scale * step[0], scale * step[1]), (scale * height, scale * width))
    row_readers, column_readers = patch_readers(config, spec)
    last_read = {r: offset for offset, pairs in row_readers.items() for r, _ in pairs}
    looped = config.loops_over_taps(spec)

    def store(r: int, sums: dict):
        """One row of the patch, without positions beyond the image. Spare patches repeat the last one's writes."""
        for q, (i, j) in itertools.product(range(config.tile_w), itertools.product(range(scale), repeat=2)):
            index, inside = y_image.at(scale * r + i, scale * q + j)
            total = scaled(sums[r, q, scale * i + j], spec)
            memory.store(y_ref, (index, channels.numbers), total, inside, channels.live)

    def add_taps(taps: Taps, sums: dict) -> dict:
        s, c = filter_loads(s_ref, n_ref, c_ref, taps, shape=shape, patches=patches, channels=channels, memory=memory)
        sums, (row_shift, column_shift) = dict(sums), taps.offset
        for row, row_pairs in row_readers.items():
            for column, column_pairs in column_readers.items():
                index, inside = x_image.at(row + row_shift, column + column_shift)
                x = memory.load(x_ref, (index, channels.numbers), inside, channels.live)
                for (r, i), (q, j), sub in itertools.product(row_pairs, column_pairs, range(scale**2)):
                    term = x * combine(s((r, q), s_image.clamped(r, q), None, sub, i, j), c(sub, i, j), spec)
                    sums[r, q, sub] = sums[r, q, sub] + term if (r, q, sub) in sums else term
            for r in [] if looped else [r for r, last in last_read.items() if last == row]:
                store(r, sums)  # early, so that only the rows in flight take registers
        return sums

    keys = itertools.product(range(config.tile_h), range(config.tile_w), range(scale**2))
    sums = for_taps(spec, config, add_taps, dict.fromkeys(keys, zeros(config)) if looped else {})
    for r in range(config.tile_h) if looped else []:
        store(r, sums)
