"""The cotangents of both filters of a DDF in one kernel.

x, dy and their products are the same for both, so that three operations per tap do what takes four apart, and x and dy
are read once. Who wants one of the two pays for both. `config.gradient_passes` says where it is used.
"""

import itertools
import math

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from pallas_kernels import compat
from pallas_kernels.ops.config import BlockConfig, Problem, channel_blocks, parts_of_sample, rows_in_flight
from pallas_kernels.ops.triton.fwd import filter_loads, launch, patch_count, uses, zeros
from pallas_kernels.ops.triton.tiles import Channels, Image, Memory, Patches, Taps
from pallas_kernels.ops.vjp import Residuals


def filters_gradient(
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
    return dspatial.reshape(spatial.shape), sum_of_parts(partial, channel)


def sum_of_parts(partial: Array, channel: Array) -> Array:
    return partial.reshape(channel.shape[0], -1, *channel.shape[1:]).sum(1).astype(channel.dtype)


def _filters_kernel(
    x_ref, dy_ref, s_ref, c_ref, ds_ref, dc_ref, *, problem: Problem, config: BlockConfig, memory: Memory
):
    """ds[p, t] = Σ over the channels of a block of dy[p] · x[p + t] · c[t]; dc[t] as in `bwd._channel_kernel`.

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
    sums = {tap: sums.get(tap, zeros(config)) for tap in every_tap}

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
