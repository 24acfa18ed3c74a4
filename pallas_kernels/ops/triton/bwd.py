"""The backward pass of the Triton implementation: its kernels, none with atomics.

* x: the forward kernel turned around. Each dy value is read once per patch and meets every tap that leads to a pixel.
* spatial: a thread sums over channels in registers, threads join at the end; programs own their positions alone.
* channel: a thread sums over positions in registers; a program writes one partial sum, and those are added in order.
* spatial and channel at once, where the registers hold what both need: `triton_filters`.
"""

import itertools
from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from pallas_kernels import compat
from pallas_kernels.ops.config import BlockConfig, Pass, Problem, channel_blocks, steps_per_chunk
from pallas_kernels.ops.heuristics import choose, gradient_passes
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton.dfilters import filters_gradient, sum_of_parts
from pallas_kernels.ops.triton.fwd import (
    combine,
    filter_loads,
    for_taps,
    launch,
    patch_count,
    pixel_rows,
    tile,
    uses,
    zeros,
)
from pallas_kernels.ops.triton.fwd import forward as forward
from pallas_kernels.ops.triton.tiles import Channels, Memory, Patches, Taps
from pallas_kernels.ops.vjp import Gradients, Residuals


def backward(
    residuals: Residuals,
    dy: Array,
    spec: FilterSpec,
    *,
    configs: dict[Pass, BlockConfig] | None = None,
    interpret: bool = False,
) -> Gradients:
    problem = Problem.of(*residuals, spec)
    x, spatial, channel = pixel_rows(*residuals)
    dy, _, _ = pixel_rows(dy, None, None)

    def run(kernel: Callable, which: Pass, arrays, like: Array, width: int, dtype=None) -> Array:
        config = (configs or {}).get(which) or choose(problem, which)
        output = compat.kernel_output((like.size // width * config.chunks, width), dtype or like.dtype, like)
        name = f"dynamic_filter_{which}_gradient"
        return launch(kernel, name, arrays, output, problem, config, which, interpret)

    dx = run(_input_kernel, "input", (dy, spatial, channel), residuals.x, problem.channels)
    dx = dx.reshape(residuals.x.shape)
    # Under "add" the cotangent of one filter does not depend on the other.
    factors = (spatial, channel) if spec.combine == "mul" else (None, None)
    if "filters" in (configs or gradient_passes(problem)):
        config = (configs or {}).get("filters") or choose(problem, "filters")
        return Gradients(dx, *filters_gradient(residuals, x, dy, factors, problem, config, interpret))
    dspatial = dchannel = None
    if residuals.spatial is not None:
        width = spec.scale**2 * problem.groups * spec.taps
        dspatial = run(_spatial_kernel, "spatial", (x, dy, factors[1]), residuals.spatial, width)
        dspatial = dspatial.reshape(residuals.spatial.shape)
    if residuals.channel is not None:
        partial = run(_channel_kernel, "channel", (x, dy, factors[0]), residuals.channel, problem.channels, jnp.float32)
        dchannel = sum_of_parts(partial, residuals.channel)
    return Gradients(dx, dspatial, dchannel)


def _input_kernel(dy_ref, s_ref, c_ref, dx_ref, *, problem: Problem, config: BlockConfig, memory: Memory):
    """dx[q] = Σ over taps and sub-pixels of filter[p] · dy[p], for the one p whose tap lies on q, if there is one."""
    spec, scale, (height, width) = problem.spec, problem.spec.scale, problem.positions
    patches, channels = tile(problem, config, (problem.height, problem.width))
    # A patch of pixels starts at a multiple of the stride, so the positions that reach it start at a whole number.
    step = (config.rows // spec.stride, config.columns // spec.stride)
    x_image = patches.image((config.rows, config.columns), (problem.height, problem.width))
    s_image = patches.image(step, (height, width))
    dy_image = patches.image((scale * step[0], scale * step[1]), (scale * height, scale * width))
    row_uses, column_uses = (
        _reached(pixels, taps, spec)
        for pixels, taps in ((config.rows, config.tap_rows), (config.columns, config.tap_columns))
    )

    def store(r: int, sums: dict) -> None:
        """One row of the patch; a pixel that no tap reaches has no sum."""
        for q in range(config.columns):
            index, inside = x_image.at(r, q)
            memory.store(dx_ref, (index, channels.index), sums.get((r, q), zeros(config)), inside, channels.live)

    def add_taps(taps: Taps, sums: dict) -> dict:
        s, c = filter_loads(s_ref, c_ref, problem, patches, channels, taps, memory)
        sums = dict(sums)
        for row, seen_by_rows in row_uses.items():
            p_row = row - spec.dilation * taps.first_row
            for column, seen_by_columns in column_uses.items():
                p_column = column - spec.dilation * taps.first_column
                position, exists = s_image.at(p_row, p_column)
                for sub, (i, j) in enumerate(itertools.product(range(scale), repeat=2)):
                    index, _ = dy_image.at(scale * p_row + i, scale * p_column + j)
                    dy = memory.load(dy_ref, (index, channels.index), exists, channels.live)
                    for (r, tap_row), (q, tap_column) in itertools.product(seen_by_rows, seen_by_columns):
                        tap = (sub, tap_row, tap_column)
                        term = dy * combine(s(position, exists, *tap), c(*tap), spec)
                        sums[r, q] = sums[r, q] + term if (r, q) in sums else term
            for r in [] if looped else [r for r, last in last_use.items() if last == row]:
                store(r, sums)  # early, as in the forward pass
        return sums

    last_use = {r: offset for offset, seen_by in row_uses.items() for r, _ in seen_by}
    looped = (config.tap_rows, config.tap_columns) != (spec.kernel_size, spec.kernel_size)
    pixels = itertools.product(range(config.rows), range(config.columns))
    sums = for_taps(spec, config, add_taps, dict.fromkeys(pixels, zeros(config)) if looped else {})
    for r in range(config.rows) if looped else set(range(config.rows)) - set(last_use):
        store(r, sums)


def _spatial_kernel(x_ref, dy_ref, c_ref, ds_ref, *, problem: Problem, config: BlockConfig, memory: Memory):
    """ds[p, t] = Σ over the channels of a group of dy[p] · x[p + t] · c[t]."""
    spec, scale = problem.spec, problem.spec.scale
    program = pl.program_id(0).astype(jnp.uint32)
    number = program // problem.groups * config.patches + lax.iota(jnp.uint32, config.patches)[:, None]
    patches = Patches.numbered(number, problem.batch, patch_count(config, problem.positions))
    group = program % problem.groups
    blocks = channel_blocks(problem, config)
    positions = list(itertools.product(range(config.rows), range(config.columns)))
    taps_at_once = itertools.product(range(config.tap_rows), range(config.tap_columns))
    terms = list(itertools.product(positions, range(scale**2), taps_at_once))
    lanes = min(problem.lanes, config.channels)
    threads = config.channels // lanes
    s_image = patches.image((config.rows, config.columns), problem.positions)

    def store_taps(taps: Taps, carry: int) -> int:
        def add_block(block: Array | int, sums: dict) -> dict:
            channels = Channels.block(group * blocks + block, config.channels, problem.channels, problem.groups)
            _, c = filter_loads(None, c_ref, problem, patches, channels, taps, memory)
            sums = dict(sums)
            for x, dy, term in _products(x_ref, dy_ref, problem, config, patches, channels, taps, memory):
                factor = c(term[1], *term[2])
                product = x * (dy if factor is None else dy * factor)
                # Within a thread first: nothing is exchanged between threads before the end.
                sums[term] += product.reshape(config.patches, threads, lanes).sum(2)
            return sums

        sums = dict.fromkeys(terms, jnp.zeros((config.patches, threads), jnp.float32))
        if blocks == 1:
            sums = add_block(0, sums)
        else:
            sums = lax.fori_loop(0, blocks, lambda block, sums: add_block(block.astype(jnp.uint32), sums), sums)
        for (r, q), sub, (i, j) in terms:
            index, inside = s_image.at(r, q)
            column = (sub * (problem.groups - 1) + group) * spec.taps + taps.unsigned_number(sub, i, j)
            memory.store(ds_ref, (index, column), sums[(r, q), sub, (i, j)].sum(1, keepdims=True), inside)
        return carry

    for_taps(spec, config, store_taps, 0)


def _channel_kernel(x_ref, dy_ref, s_ref, dc_ref, *, problem: Problem, config: BlockConfig, memory: Memory):
    """dc[t] = Σ over positions of dy[p] · x[p + t] · s[p, t], of the patches of one chunk of a sample."""
    spec = problem.spec
    blocks = problem.groups * channel_blocks(problem, config)
    program = pl.program_id(0).astype(jnp.uint32)
    part = program // blocks  # counts the chunks of all samples
    channels = Channels.block(program % blocks, config.channels, problem.channels, problem.groups)
    count = patch_count(config, problem.positions)
    steps = steps_per_chunk(problem, config)
    terms = list(
        itertools.product(range(spec.scale**2), itertools.product(range(config.tap_rows), range(config.tap_columns)))
    )

    def store_taps(taps: Taps, carry: int) -> int:
        def add_step(step: Array | int, sums: dict) -> dict:
            first = (part % config.chunks * steps + step) * config.patches
            within = first + lax.iota(jnp.uint32, config.patches)[:, None]
            patches = Patches.of_sample(part // config.chunks, within, problem.batch, count)
            s, _ = filter_loads(s_ref, None, problem, patches, channels, taps, memory)
            s_image = patches.image((config.rows, config.columns), problem.positions)
            live = within < count[0] * count[1]
            sums = dict(sums)
            for x, dy, (position, sub, tap) in _products(
                x_ref, dy_ref, problem, config, patches, channels, taps, memory, live
            ):
                factor = s(s_image.clamped(*position), None, sub, *tap)
                sums[sub, tap] += x * (dy if factor is None else dy * factor)
            return sums

        sums = dict.fromkeys(terms, zeros(config))
        if steps == 1:
            sums = add_step(0, sums)
        else:
            sums = lax.fori_loop(0, steps, lambda step, sums: add_step(step.astype(jnp.uint32), sums), sums)
        for sub, tap in terms:
            row = part * (spec.scale**2 * spec.taps) + taps.unsigned_number(sub, *tap)
            total = sums[sub, tap].sum(0, keepdims=True)
            memory.store(dc_ref, (row[None, None], channels.index), total, channels.live)
        return carry

    for_taps(spec, config, store_taps, 0)


def _products(x_ref, dy_ref, problem, config, patches, channels, taps, memory, live: Array | None = None):
    """Yields x[p + t], dy[p] and ((row, column) of p in the patch, sub-pixel, (row, column) of t), each read once."""
    spec, scale, (height, width) = problem.spec, problem.spec.scale, problem.positions
    x_step = (spec.stride * config.rows, spec.stride * config.columns)
    x_image = patches.image(x_step, (problem.height, problem.width))
    dy_image = patches.image((scale * config.rows, scale * config.columns), (scale * height, scale * width))

    @cache
    def dy(r: int, q: int, sub: int) -> Array:
        index, inside = dy_image.at(scale * r + sub // scale, scale * q + sub % scale)
        return memory.load(dy_ref, (index, channels.index), inside, channels.live, live)

    row_uses = uses(config.rows, config.tap_rows, spec.stride, spec.dilation)
    column_uses = uses(config.columns, config.tap_columns, spec.stride, spec.dilation)
    row_shift, column_shift = taps.offset
    for (row, seen_by_rows), (column, seen_by_columns) in itertools.product(row_uses.items(), column_uses.items()):
        index, inside = x_image.at(row + row_shift, column + column_shift)
        x = memory.load(x_ref, (index, channels.index), inside, channels.live)
        for (r, i), (q, j), sub in itertools.product(seen_by_rows, seen_by_columns, range(scale**2)):
            yield x, dy(r, q, sub), ((r, q), sub, (i, j))


def _reached(pixels: int, taps: int, spec: FilterSpec) -> dict[int, list[tuple[int, int]]]:
    """Which pixels of a patch a position reaches: {the position's offset: [(pixel, tap), …]}."""
    reached: dict[int, list[tuple[int, int]]] = {}
    for offset, pairs in uses(pixels, taps, 1, -spec.dilation).items():
        position, rest = divmod(offset + spec.reach, spec.stride)
        if rest == 0:
            reached[position] = pairs
    return reached
