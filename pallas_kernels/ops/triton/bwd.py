"""The backward kernels, without atomics.

* dx: the transposed forward kernel. Each dy value is read once per patch and multiplied for every tap to a pixel.
* dspatial: a thread sums over channels in registers, and threads are summed at the end. Programs share no position.
* dchannel: a thread sums over positions in registers. Each program writes one partial sum; those are added in order.
* dfilters: dspatial and dchannel in one kernel, where the registers hold the operands of both; see `dfilters.py`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from pallas_kernels.ops.autotune import choose_config
from pallas_kernels.ops.config import (
    ArgShape,
    BlockConfig,
    KernelName,
    num_channel_blocks,
    num_patches,
    steps_per_split,
)
from pallas_kernels.ops.form import Name
from pallas_kernels.ops.heuristics import backward_kernels
from pallas_kernels.ops.implementation import Operands, Results
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton.dfilters import filter_cotangents, sum_of_parts
from pallas_kernels.ops.triton.filters import combine, filter_loads, scaled
from pallas_kernels.ops.triton.fwd import (
    for_taps,
    launch,
    patch_readers,
    pixel_readers,
    pixel_rows,
    tile,
    zeros,
)
from pallas_kernels.ops.triton.fwd import forward as forward
from pallas_kernels.ops.triton.normalization import pull_back, statistics
from pallas_kernels.ops.triton.tiles import Channels, Memory, Patches, Taps


def backward(
    operands: Operands,
    results: Results,
    spec: FilterSpec,
    *,
    configs: Mapping[KernelName, BlockConfig] | None = None,
    interpret: bool = False,
) -> dict[Name, Array]:
    """Cotangents by the kernels that `configs` names, or the heuristic; as in `implementation.Implementation`."""
    shape = ArgShape.of_backward(operands, results, spec)
    x, spatial, channel = pixel_rows(operands.x, operands.spatial, operands.channel)
    dy, _, _ = pixel_rows(operands.y, None, None)
    norms = None
    if operands.spatial is not None and spec.normalize:
        norms = statistics(operands.spatial, spec, interpret=interpret)
    configs = configs or {}

    def run(body: Callable, kernel: KernelName, arrays: tuple, name: Name, width: int, dtype: Any = None) -> Array:
        config = configs.get(kernel) or choose_config(shape, kernel)
        rows = math.prod(results[name].shape) // width * config.num_splits
        output = jax.ShapeDtypeStruct((rows, width), dtype or results[name].dtype)
        return launch(body, arrays, output, kernel=kernel, shape=shape, config=config, interpret=interpret)

    found: dict[Name, Array] = {}
    if "x" in results:
        found["x"] = run(_dx_kernel, "dx", (dy, spatial, norms, channel), "x", shape.channels)
    # Under "add" the cotangent of one filter does not depend on the other.
    spatial, norms, channel = (spatial, norms, channel) if spec.combine == "mul" else (None, None, None)
    # The normalisation is pulled back by a kernel after that.
    wide = jnp.float32 if spec.normalize else None
    if {"spatial", "channel"} <= set(results) and "dfilters" in (configs or backward_kernels(shape)):
        config = configs.get("dfilters") or choose_config(shape, "dfilters")
        arrays = (x, dy, spatial, norms, channel)
        found |= filter_cotangents(results, arrays, shape=shape, config=config, interpret=interpret, dtype=wide)
    else:
        if "spatial" in results:
            width = spec.scale**2 * shape.groups * spec.taps
            found["spatial"] = run(_dspatial_kernel, "dspatial", (x, dy, channel), "spatial", width, wide)
        if "channel" in results:
            arrays = (x, dy, spatial, norms)
            partial = run(_dchannel_kernel, "dchannel", arrays, "channel", shape.channels, jnp.float32)
            found["channel"] = sum_of_parts(partial, results["channel"])
    if "spatial" in found:
        parts = found["spatial"].reshape(len(found["spatial"]), -1, found["spatial"].shape[-1])
        if spec.normalize:
            assert operands.spatial is not None
            found["spatial"] = pull_back(operands.spatial, parts, results["spatial"], spec, interpret=interpret)
        elif parts.shape[1] > 1:
            found["spatial"] = parts.sum(1).astype(results["spatial"].dtype)
    return {name: found[name].reshape(struct.shape) for name, struct in results.items()}


def _dx_kernel(dy_ref, s_ref, n_ref, c_ref, dx_ref, *, shape: ArgShape, config: BlockConfig, memory: Memory):
    """dx[q] = Σ over taps and sub-pixels of filter[p] · dy[p], for the position p whose tap reads q, if any."""
    spec, scale, (height, width) = shape.spec, shape.spec.scale, shape.positions
    patches, channels = tile(shape, config, (shape.height, shape.width))
    # A patch of pixels starts at a multiple of the stride, so the positions that read it start at a whole number.
    step = (config.tile_h // spec.stride[0], config.tile_w // spec.stride[1])
    x_image = patches.image((config.tile_h, config.tile_w), (shape.height, shape.width))
    s_image = patches.image(step, (height, width))
    dy_image = patches.image((scale * step[0], scale * step[1]), (scale * height, scale * width))
    row_targets, column_targets = (
        _position_targets(pixels, taps, spec, axis)
        for axis, (pixels, taps) in enumerate(
            ((config.tile_h, config.block_taps_h), (config.tile_w, config.block_taps_w))
        )
    )

    def store(r: int, sums: dict) -> None:
        """One row of the patch; a pixel that no tap reads has no sum."""
        for q in range(config.tile_w):
            index, inside = x_image.at(r, q)
            total = scaled(sums.get((r, q), zeros(config)), spec)
            memory.store(dx_ref, (index, channels.numbers), total, inside, channels.live)

    def add_taps(taps: Taps, sums: dict) -> dict:
        s, c = filter_loads(s_ref, n_ref, c_ref, taps, shape=shape, patches=patches, channels=channels, memory=memory)
        sums = dict(sums)
        for row, row_pairs in row_targets.items():
            p_row = row - spec.dilation[0] * taps.first_row
            for column, column_pairs in column_targets.items():
                p_column = column - spec.dilation[1] * taps.first_column
                position, exists = s_image.at(p_row, p_column)
                for sub, (i, j) in enumerate(itertools.product(range(scale), repeat=2)):
                    index, _ = dy_image.at(scale * p_row + i, scale * p_column + j)
                    dy = memory.load(dy_ref, (index, channels.numbers), exists, channels.live)
                    for (r, tap_row), (q, tap_column) in itertools.product(row_pairs, column_pairs):
                        tap = (sub, tap_row, tap_column)
                        term = dy * combine(s((row, column), position, exists, *tap), c(*tap), spec)
                        sums[r, q] = sums[r, q] + term if (r, q) in sums else term
            for r in [] if looped else [r for r, last in last_write.items() if last == row]:
                store(r, sums)  # early, as in the forward pass
        return sums

    last_write = {r: offset for offset, pairs in row_targets.items() for r, _ in pairs}
    looped = config.loops_over_taps(spec)
    pixels = itertools.product(range(config.tile_h), range(config.tile_w))
    sums = for_taps(spec, config, add_taps, dict.fromkeys(pixels, zeros(config)) if looped else {})
    for r in range(config.tile_h) if looped else set(range(config.tile_h)) - set(last_write):
        store(r, sums)


def _dspatial_kernel(x_ref, dy_ref, c_ref, ds_ref, *, shape: ArgShape, config: BlockConfig, memory: Memory):
    """ds[p, t] = Σ over the channels of a group of dy[p] · x[p + t] · c[t]."""
    spec, scale = shape.spec, shape.spec.scale
    program = pl.program_id(0).astype(jnp.uint32)
    number = program // shape.groups * config.block_patches + lax.iota(jnp.uint32, config.block_patches)[:, None]
    patches = Patches.numbered(number, shape.batch, num_patches(config, shape.positions))
    group = program % shape.groups
    blocks = num_channel_blocks(shape, config)
    positions = list(itertools.product(range(config.tile_h), range(config.tile_w)))
    block_taps = itertools.product(range(config.block_taps_h), range(config.block_taps_w))
    terms = list(itertools.product(positions, range(scale**2), block_taps))
    lanes = min(shape.vector_size, config.block_channels)
    threads = config.block_channels // lanes
    s_image = patches.image((config.tile_h, config.tile_w), shape.positions)

    def store_taps(taps: Taps, carry: int) -> int:
        def add_block(block: Array | int, sums: dict) -> dict:
            channels = Channels.block(group * blocks + block, config.block_channels, shape.channels, shape.groups)
            _, c = filter_loads(None, None, c_ref, taps, shape=shape, patches=patches, channels=channels, memory=memory)
            products = _products(
                x_ref, dy_ref, taps, shape=shape, config=config, patches=patches, channels=channels, memory=memory
            )
            sums = dict(sums)
            for x, dy, term in products:
                factor = c(term[1], *term[2])
                product = x * (dy if factor is None else dy * factor)
                # Within a thread first: threads exchange nothing before the end.
                sums[term] += product.reshape(config.block_patches, threads, lanes).sum(2)
            return sums

        sums = dict.fromkeys(terms, jnp.zeros((config.block_patches, threads), jnp.float32))
        if blocks == 1:
            sums = add_block(0, sums)
        else:
            sums = lax.fori_loop(0, blocks, lambda block, sums: add_block(block.astype(jnp.uint32), sums), sums)
        for (r, q), sub, (i, j) in terms:
            index, inside = s_image.at(r, q)
            column = (sub * (shape.groups - 1) + group) * spec.taps + taps.unsigned_number(sub, i, j)
            total = scaled(sums[(r, q), sub, (i, j)].sum(1, keepdims=True), spec)
            memory.store(ds_ref, (index, column), total, inside)
        return carry

    for_taps(spec, config, store_taps, 0)


def _dchannel_kernel(x_ref, dy_ref, s_ref, n_ref, dc_ref, *, shape: ArgShape, config: BlockConfig, memory: Memory):
    """dc[t] = Σ over positions of dy[p] · x[p + t] · s[p, t], over the patches of one split of a sample."""
    spec = shape.spec
    blocks = shape.groups * num_channel_blocks(shape, config)
    program = pl.program_id(0).astype(jnp.uint32)
    part = program // blocks  # counts the splits of all samples
    channels = Channels.block(program % blocks, config.block_channels, shape.channels, shape.groups)
    count = num_patches(config, shape.positions)
    steps = steps_per_split(shape, config)
    block_taps = itertools.product(range(config.block_taps_h), range(config.block_taps_w))
    terms = list(itertools.product(range(spec.scale**2), block_taps))

    def store_taps(taps: Taps, carry: int) -> int:
        def add_step(step: Array | int, sums: dict) -> dict:
            first = (part % config.num_splits * steps + step) * config.block_patches
            within = first + lax.iota(jnp.uint32, config.block_patches)[:, None]
            patches = Patches.of_sample(part // config.num_splits, within, shape.batch, count)
            s, _ = filter_loads(
                s_ref, n_ref, None, taps, shape=shape, patches=patches, channels=channels, memory=memory
            )
            s_image = patches.image((config.tile_h, config.tile_w), shape.positions)
            live = within < count[0] * count[1]
            products = _products(
                x_ref,
                dy_ref,
                taps,
                shape=shape,
                config=config,
                patches=patches,
                channels=channels,
                memory=memory,
                live=live,
            )
            sums = dict(sums)
            for x, dy, (position, sub, tap) in products:
                factor = s(position, s_image.clamped(*position), None, sub, *tap)
                sums[sub, tap] += x * (dy if factor is None else dy * factor)
            return sums

        sums = dict.fromkeys(terms, zeros(config))
        if steps == 1:
            sums = add_step(0, sums)
        else:
            sums = lax.fori_loop(0, steps, lambda step, sums: add_step(step.astype(jnp.uint32), sums), sums)
        for sub, tap in terms:
            row = part * (spec.scale**2 * spec.taps) + taps.unsigned_number(sub, *tap)
            total = scaled(sums[sub, tap].sum(0, keepdims=True), spec)
            memory.store(dc_ref, (row[None, None], channels.numbers), total, channels.live)
        return carry

    for_taps(spec, config, store_taps, 0)


def _products(
    x_ref,
    dy_ref,
    taps: Taps,
    *,
    shape: ArgShape,
    config: BlockConfig,
    patches: Patches,
    channels: Channels,
    memory: Memory,
    live: Array | None = None,
) -> Iterator[tuple[Array, Array, tuple[tuple[int, int], int, tuple[int, int]]]]:
    """Yields x[p + t], dy[p] and ((row, column) of p in the patch, sub-pixel, (row, column) of t), each read once."""
    spec, scale, (height, width) = shape.spec, shape.spec.scale, shape.positions
    x_step = (spec.stride[0] * config.tile_h, spec.stride[1] * config.tile_w)
    x_image = patches.image(x_step, (shape.height, shape.width))
    dy_image = patches.image((scale * config.tile_h, scale * config.tile_w), (scale * height, scale * width))

    @cache
    def dy(r: int, q: int, sub: int) -> Array:
        index, inside = dy_image.at(scale * r + sub // scale, scale * q + sub % scale)
        return memory.load(dy_ref, (index, channels.numbers), inside, channels.live, live)

    row_readers, column_readers = patch_readers(config, spec)
    row_shift, column_shift = taps.offset
    for (row, row_pairs), (column, column_pairs) in itertools.product(row_readers.items(), column_readers.items()):
        index, inside = x_image.at(row + row_shift, column + column_shift)
        x = memory.load(x_ref, (index, channels.numbers), inside, channels.live)
        for (r, i), (q, j), sub in itertools.product(row_pairs, column_pairs, range(scale**2)):
            yield x, dy(r, q, sub), ((r, q), sub, (i, j))


def _position_targets(pixels: int, taps: int, spec: FilterSpec, axis: int) -> dict[int, list[tuple[int, int]]]:
    """The (pixel, tap) pairs of a patch, along an axis, that each position reads, by the position's offset."""
    targets: dict[int, list[tuple[int, int]]] = {}
    for offset, pairs in pixel_readers(pixels, taps, 1, -spec.dilation[axis]).items():
        position, rest = divmod(offset + spec.origin[axis], spec.stride[axis])
        if rest == 0:
            targets[position] = pairs
    return targets
