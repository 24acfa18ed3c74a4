"""The backward pass of the Triton implementation: its kernels, none with atomics.

* x: the forward kernel turned around. Each dy value is read once per patch and meets every tap that leads to a pixel.
* spatial: a thread sums over channels in registers, threads join at the end; programs own their positions alone.
* channel: a thread sums over positions in registers; a program writes one partial sum, and those are added in order.
* filters: the cotangents of both filters at once, where the registers hold what both need. x, dy and their products
  are the same for both, so that three operations per tap do what takes four apart, and x and dy are read once. Who
  wants one of the two pays for both.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from pallas_kernels import compat
from pallas_kernels.dynamic_filter.config import (
    BlockConfig,
    Pass,
    Problem,
    channel_blocks,
    choose,
    gradient_passes,
    parts_of_sample,
    rows_in_flight,
    steps_per_chunk,
)
from pallas_kernels.dynamic_filter.spec import FilterSpec
from pallas_kernels.dynamic_filter.triton import (
    combine,
    filter_loads,
    for_taps,
    launch,
    patch_count,
    pixel_rows,
    tile,
    uses,
)
from pallas_kernels.dynamic_filter.triton import forward as forward
from pallas_kernels.dynamic_filter.triton_tile import Channels, Image, Memory, Patches, Taps
from pallas_kernels.dynamic_filter.vjp import Gradients, Residuals


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
        return Gradients(dx, *_filters(residuals, x, dy, factors, problem, config, interpret))
    dspatial = dchannel = None
    if residuals.spatial is not None:
        width = spec.scale**2 * problem.groups * spec.taps
        dspatial = run(_spatial_kernel, "spatial", (x, dy, factors[1]), residuals.spatial, width)
        dspatial = dspatial.reshape(residuals.spatial.shape)
    if residuals.channel is not None:
        partial = run(_channel_kernel, "channel", (x, dy, factors[0]), residuals.channel, problem.channels, jnp.float32)
        dchannel = _sum_of_chunks(partial, residuals.channel)
    return Gradients(dx, dspatial, dchannel)


def _filters(
    residuals: Residuals, x: Array, dy: Array, factors, problem: Problem, config: BlockConfig, interpret: bool
) -> tuple[Array, Array]:
    """The cotangents of the spatial and the channel filter; partial sums, if there are any, are added in order."""
    spatial, channel = residuals.spatial, residuals.channel
    assert spatial is not None
    assert channel is not None
    blocks, width = channel_blocks(problem, config), problem.groups * problem.spec.taps
    pixels = spatial.size // width
    output = (
        compat.kernel_output((pixels, blocks * width), jnp.float32 if blocks > 1 else spatial.dtype, spatial),
        compat.kernel_output(
            (channel.size // problem.channels * parts_of_sample(problem, config), problem.channels),
            jnp.float32,
            channel,
        ),
    )
    name = "dynamic_filter_filters_gradient"
    dspatial, partial = launch(_filters_kernel, name, (x, dy, *factors), output, problem, config, "filters", interpret)
    if blocks > 1:
        dspatial = dspatial.reshape(pixels, blocks, width).sum(1).astype(spatial.dtype)
    return dspatial.reshape(spatial.shape), _sum_of_chunks(partial, channel)


def _sum_of_chunks(partial: Array, channel: Array) -> Array:
    return partial.reshape(channel.shape[0], -1, *channel.shape[1:]).sum(1).astype(channel.dtype)


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
            memory.store(dx_ref, (index, channels.index), sums.get((r, q), _zeros(config)), inside, channels.live)

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
    sums = for_taps(spec, config, add_taps, dict.fromkeys(pixels, _zeros(config)) if looped else {})
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

        zeros = jnp.zeros((config.patches, threads), jnp.float32)
        sums = dict.fromkeys(terms, zeros)
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

        sums = dict.fromkeys(terms, _zeros(config))
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


def _filters_kernel(
    x_ref, dy_ref, s_ref, c_ref, ds_ref, dc_ref, *, problem: Problem, config: BlockConfig, memory: Memory
):
    """ds[p, t] = Σ over the channels of a block of dy[p] · x[p + t] · c[t]; dc[t] as in `_channel_kernel`.

    Each thread walks down a patch, a row of positions at a time, reads the last rows of x that those positions see and
    keeps the dy of all that see them too. So the filter of the block's channels and the sums of its cotangent stay in
    registers, and the code is as long as one row takes.
    """
    spec, (height, width) = problem.spec, problem.positions
    blocks = channel_blocks(problem, config)
    program = pl.program_id(0).astype(jnp.uint32)
    part, block = program // (problem.groups * blocks), program % (problem.groups * blocks)
    parts = parts_of_sample(problem, config)
    channels = Channels.block(block, config.channels, problem.channels, problem.groups)
    count = patch_count(config, (height, width))
    number = part % parts * config.patches + lax.iota(jnp.uint32, config.patches)[:, None]
    patches = Patches.of_sample(part // parts, number, problem.batch, count)
    every_tap = list(itertools.product(range(spec.kernel_size), repeat=2))
    taps = Taps(0, 0, spec.kernel_size, spec.kernel_size, spec)
    s, c = filter_loads(s_ref, c_ref, problem, patches, channels, taps, memory)
    factors = {tap: c(0, *tap) for tap in every_tap}
    lanes = min(problem.lanes, config.channels)
    thread = lax.broadcasted_iota(jnp.uint32, (config.patches, config.channels // lanes), 1)
    first_column = block % blocks * (problem.groups * spec.taps) + channels.group * spec.taps

    s_image = patches.image((config.rows, config.columns), (height, width))
    x_step = (spec.stride * config.rows, spec.stride * config.columns)
    x_image = patches.image(x_step, (problem.height, problem.width))
    # The last rows of x that a position sees, and who sees them: {row of x: [(how far down, row of taps), …]}.
    in_flight = rows_in_flight(spec)
    seen_by = uses(in_flight + 1, spec.kernel_size, spec.stride, spec.dilation)
    x_rows = [row for row in range(2 * spec.reach - spec.stride + 1, 2 * spec.reach + 1) if row in seen_by]
    column_uses = uses(config.columns, spec.kernel_size, spec.stride, spec.dilation)

    def visit(row: int, s_image: Image, x_image: Image, within: range, dys: dict, sums: dict) -> tuple[dict, dict]:
        """The last rows of x that the positions of `row` see, met with those positions `within` that far from it."""
        dys, sums = dict(dys), dict(sums)
        if in_flight in within:
            for q in range(config.columns):
                index, inside = s_image.at(row + in_flight, q)
                dys[in_flight, q] = memory.load(dy_ref, (index, channels.index), inside, channels.live)
        for x_row in x_rows:
            met = [(p, i) for p, i in seen_by[x_row] if p in within]
            terms = {}
            for column, seen_by_columns in column_uses.items() if met else ():
                index, inside = x_image.at(spec.stride * row + x_row - spec.reach, column - spec.reach)
                x = memory.load(x_ref, (index, channels.index), inside, channels.live)
                for (p, i), (q, j) in itertools.product(met, seen_by_columns):
                    product = x * dys[p, q]
                    terms[p, q, i, j] = product if factors[i, j] is None else product * factors[i, j]
                    factor = s(s_image.clamped(row + p, q), None, 0, i, j)
                    product = product if factor is None else product * factor
                    sums[i, j] = sums[i, j] + product if (i, j) in sums else product
            for (p, i), q in itertools.product(met, range(config.columns)):
                store_row(s_image.at(row + p, q), i, [terms[p, q, i, j] for j in range(spec.kernel_size)])
        return {(p - 1, q): dy for (p, q), dy in dys.items() if p > 0}, sums

    def store_row(pixel: tuple[Array, Array | None], i: int, terms: list[Array]) -> None:
        """A row of taps of a position. Its sums over the threads are known to all of them: each writes another one."""
        index, inside = pixel
        for first in range(0, spec.kernel_size, thread.shape[1]):
            written = terms[first : first + thread.shape[1]]
            totals = [term.reshape(*thread.shape, lanes).sum(2).sum(1, keepdims=True) for term in written]
            value = jnp.broadcast_to(totals[0], thread.shape)
            for j, total in enumerate(totals[1:], 1):
                value = jnp.where(thread == j, total, value)
            column = first_column + taps.unsigned_number(0, i, first) + thread
            index = jnp.broadcast_to(index, thread.shape)
            memory.store(ds_ref, (index, column), value, inside, thread < len(written))

    # The first rows of x are seen by positions below them alone, the last ones by fewer and fewer.
    steps = max(0, config.rows - in_flight)
    state: tuple[dict, dict] = {}, {}
    for row in range(-in_flight, 0):
        state = visit(row, s_image, x_image, range(-row, min(in_flight + 1, config.rows - row)), *state)
    dys, sums = state
    sums = {tap: sums.get(tap, _zeros(config)) for tap in every_tap}

    def step(row: Array, state: tuple[dict, dict]) -> tuple[dict, dict]:
        row = row.astype(jnp.uint32)
        images = s_image.moved(row, steps - 1), x_image.moved(spec.stride * row, spec.stride * (steps - 1))
        return visit(0, *images, range(in_flight + 1), *state)

    state = lax.fori_loop(0, steps, step, (dys, sums)) if steps else (dys, sums)
    for row in range(steps, config.rows):
        state = visit(row, s_image, x_image, range(config.rows - row), *state)
    for tap, total in state[1].items():
        # Spare patches have written what the last one writes, and must not count twice here.
        total = jnp.where(number < math.prod(count), total, 0.0).sum(0, keepdims=True)
        index = part * spec.taps + taps.unsigned_number(0, *tap)
        memory.store(dc_ref, (index[None, None], channels.index), total, channels.live)


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


def _zeros(config: BlockConfig) -> Array:
    return jnp.zeros((config.patches, config.channels), jnp.float32)
