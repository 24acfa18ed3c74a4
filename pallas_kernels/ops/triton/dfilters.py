"""dfilters: the cotangents of both filters in one kernel.

Both need x, dy and their products, so one kernel takes three operations per tap instead of four, and reads x and dy
once. It computes both even where one is unused. `heuristics.backward_kernels` decides where it runs.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from pallas_kernels.ops.config import (
    ArgShape,
    BlockConfig,
    num_channel_blocks,
    num_patches,
    programs_per_sample,
    rows_in_flight,
)
from pallas_kernels.ops.form import Name
from pallas_kernels.ops.implementation import Results
from pallas_kernels.ops.triton.filters import filter_loads, scaled
from pallas_kernels.ops.triton.fwd import launch, pixel_readers, zeros
from pallas_kernels.ops.triton.tiles import Channels, Image, Memory, Patches, Taps


def filter_cotangents(
    results: Results,
    arrays: Sequence[Array | None],
    *,
    shape: ArgShape,
    config: BlockConfig,
    interpret: bool,
    dtype: Any = None,
) -> dict[Name, Array]:
    """The cotangents of the spatial filter, [B·Ho·Wo, G·T] or in N parts [B·Ho·Wo, N, G·T], and of the channel filter.

    Args:
      results: both filters' cotangents.
      arrays: x, dy and both filters as `pixel_rows`, after the spatial one its statistics; None under "add".
      shape: of the call.
      config: of dfilters.
      interpret: runs Pallas's interpreter.
      dtype: of the cotangent of the spatial filter, by default that in `results`.
    """
    spatial, channel = results["spatial"], results["channel"]
    dtype = dtype or spatial.dtype
    blocks, width = num_channel_blocks(shape, config), shape.groups * shape.spec.taps
    pixels = math.prod(spatial.shape) // width
    parts = shape.batch * programs_per_sample(shape, config)
    output = (
        jax.ShapeDtypeStruct((pixels, blocks * width), jnp.float32 if blocks > 1 else dtype),
        jax.ShapeDtypeStruct((parts * shape.spec.taps, shape.channels), jnp.float32),
    )
    dspatial, partial = launch(
        _dfilters_kernel, arrays, output, kernel="dfilters", shape=shape, config=config, interpret=interpret
    )
    if blocks > 1:
        dspatial = dspatial.reshape(pixels, blocks, width)
    return {"spatial": dspatial, "channel": sum_of_parts(partial, channel)}


def sum_of_parts(partial: Array, channel: jax.ShapeDtypeStruct) -> Array:
    """The cotangent of the channel filter from its partial sums [B·parts·S²·T, C], added over the parts in float32."""
    return partial.reshape(channel.shape[0], -1, *channel.shape[1:]).sum(1).astype(channel.dtype)


def _dfilters_kernel(
    x_ref, dy_ref, s_ref, n_ref, c_ref, ds_ref, dc_ref, *, shape: ArgShape, config: BlockConfig, memory: Memory
):
    """ds[p, t] = Σ over the channels of a block of dy[p] · x[p + t] · c[t]; dc[t] as in `bwd._dchannel_kernel`.

    Each thread streams down a patch, one row of positions at a time. It loads the last rows of x that those positions
    read, and keeps the dy of all positions that read them too. So the filter of the block's channels and the sums of
    its cotangent stay in registers, and the code is unrolled for one row only.
    """
    spec, (height, width) = shape.spec, shape.positions
    blocks = num_channel_blocks(shape, config)
    program = pl.program_id(0).astype(jnp.uint32)
    part, block = program // (shape.groups * blocks), program % (shape.groups * blocks)
    parts = programs_per_sample(shape, config)
    channels = Channels.block(block, config.block_channels, shape.channels, shape.groups)
    count = num_patches(config, (height, width))
    number = part % parts * config.block_patches + lax.iota(jnp.uint32, config.block_patches)[:, None]
    patches = Patches.of_sample(part // parts, number, shape.batch, count)
    (taps_h, taps_w), (down, right), (top, left) = spec.kernel_size, spec.stride, spec.origin
    every_tap = list(itertools.product(range(taps_h), range(taps_w)))
    taps = Taps(0, 0, taps_h, taps_w, spec)
    s, c = filter_loads(s_ref, n_ref, c_ref, taps, shape=shape, patches=patches, channels=channels, memory=memory)
    factors = {tap: c(0, *tap) for tap in every_tap}
    lanes = min(shape.vector_size, config.block_channels)
    thread = lax.broadcasted_iota(jnp.uint32, (config.block_patches, config.block_channels // lanes), 1)
    first_column = block % blocks * (shape.groups * spec.taps) + channels.group * spec.taps

    s_image = patches.image((config.tile_h, config.tile_w), (height, width))
    x_step = (down * config.tile_h, right * config.tile_w)
    x_image = patches.image(x_step, (shape.height, shape.width))
    # The last rows of x that a position reads, and their readers: {row of x: [(rows further down, row of taps), …]}.
    in_flight = rows_in_flight(spec)
    readers = pixel_readers(in_flight + 1, taps_h, down, spec.dilation[0])
    x_rows = [row for row in range(spec.span[0] - down + 1, spec.span[0] + 1) if row in readers]
    column_readers = pixel_readers(config.tile_w, taps_w, right, spec.dilation[1])

    def visit(row: int, s_image: Image, x_image: Image, within: range, dys: dict, sums: dict) -> tuple[dict, dict]:
        """Multiplies the last rows of x that `row` reads with their readers at a distance in `within` below `row`."""
        dys, sums = dict(dys), dict(sums)
        if in_flight in within:
            for q in range(config.tile_w):
                index, inside = s_image.at(row + in_flight, q)
                dys[in_flight, q] = memory.load(dy_ref, (index, channels.numbers), inside, channels.live)
        for x_row in x_rows:
            pairs = [(p, i) for p, i in readers[x_row] if p in within]
            terms = {}
            for column, column_pairs in column_readers.items() if pairs else ():
                index, inside = x_image.at(down * row + x_row - top, column - left)
                x = memory.load(x_ref, (index, channels.numbers), inside, channels.live)
                for (p, i), (q, j) in itertools.product(pairs, column_pairs):
                    product = x * dys[p, q]
                    terms[p, q, i, j] = product if factors[i, j] is None else product * factors[i, j]
                    factor = s((row, p, q), s_image.clamped(row + p, q), None, 0, i, j)
                    product = product if factor is None else product * factor
                    sums[i, j] = sums[i, j] + product if (i, j) in sums else product
            for (p, i), q in itertools.product(pairs, range(config.tile_w)):
                store_row(s_image.at(row + p, q), i, [terms[p, q, i, j] for j in range(taps_w)])
        return {(p - 1, q): dy for (p, q), dy in dys.items() if p > 0}, sums

    def store_row(pixel: tuple[Array, Array | None], i: int, terms: list[Array]) -> None:
        """A row of taps of a position. Every thread holds all sums over the threads; each writes a different one."""
        index, inside = pixel
        for first in range(0, taps_w, thread.shape[1]):
            written = terms[first : first + thread.shape[1]]
            totals = [term.reshape(*thread.shape, lanes).sum(2).sum(1, keepdims=True) for term in written]
            value = jnp.broadcast_to(totals[0], thread.shape)
            for j, total in enumerate(totals[1:], 1):
                value = jnp.where(thread == j, total, value)
            column = first_column + taps.unsigned_number(0, i, first) + thread
            index = jnp.broadcast_to(index, thread.shape)
            memory.store(ds_ref, (index, column), scaled(value, spec), inside, thread < len(written))

    # Fewer positions read the first and the last rows of x.
    steps = max(0, config.tile_h - in_flight)
    state: tuple[dict, dict] = {}, {}
    for row in range(-in_flight, 0):
        state = visit(row, s_image, x_image, range(-row, min(in_flight + 1, config.tile_h - row)), *state)
    dys, sums = state
    sums = {tap: sums.get(tap, zeros(config)) for tap in every_tap}

    def step(row: Array, state: tuple[dict, dict]) -> tuple[dict, dict]:
        row = row.astype(jnp.uint32)
        images = s_image.moved(row, steps - 1), x_image.moved(down * row, down * (steps - 1))
        return visit(0, *images, range(in_flight + 1), *state)

    state = lax.fori_loop(0, steps, step, (dys, sums)) if steps else (dys, sums)
    for row in range(steps, config.tile_h):
        state = visit(row, s_image, x_image, range(config.tile_h - row), *state)
    for tap, total in state[1].items():
        # Spare patches repeat the last one, and must not count twice here.
        total = scaled(jnp.where(number < math.prod(count), total, 0.0).sum(0, keepdims=True), spec)
        index = part * spec.taps + taps.unsigned_number(0, *tap)
        memory.store(dc_ref, (index[None, None], channels.numbers), total, channels.live)
