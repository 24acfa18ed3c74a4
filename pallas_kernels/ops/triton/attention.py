"""Attention in a neighbourhood as one forward kernel: its logits never leave the registers.

A program computes neighbouring positions of one head: a few positions per thread times the channels of one load, with
the query and the sums in registers. It goes over the keys of the window in blocks: the logits of a block, reduced over
the threads that hold a head's channels, then their softmax, rescaled as the largest logit grows, and the values. A key
or value that several positions of a patch read is loaded and converted once.
"""

import functools
import itertools
import math
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.ops.config import ArgShape, BlockConfig
from pallas_kernels.ops.heuristics import NUM_WARPS, THREADS
from pallas_kernels.ops.neighborhood import AttentionSpec
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton.fwd import for_taps, launch, patch_readers, pixel_rows, tile, zeros
from pallas_kernels.ops.triton.tiles import Axis, Image, Memory, Offset, Taps, shifted

WINDOW_LOGITS = 18  # of the positions of a patch: larger windows compile slowly unless a loop goes over their rows
ROW_LOGITS = 32  # more do not fit the registers
LOG2_E = math.log2(math.e)
SMALLEST = float(jnp.finfo(jnp.float32).min)  # below any logit but -inf, which has no share


def attend(
    v: Array,
    q: Array,
    k: Array,
    bias: Array | None = None,
    *,
    spec: AttentionSpec,
    num_heads: int,
    config: BlockConfig | None = None,
    interpret: bool = False,
) -> Array:
    """y [B, H, W, C] of v, q and k [B, H, W, C] and the bias: [B, G, T], [1, G, T] or None."""
    batch, height, width, channels = v.shape
    shape = ArgShape(
        spec=FilterSpec(spec.kernel_size, dilation=spec.dilation),
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        groups=num_heads,
        itemsize=v.dtype.itemsize,
        has_spatial=True,
        has_channel=False,
    )
    rows = [pixel_rows(array, None, None)[0] for array in (v, q, k)]
    shared = bias is not None and bias.shape[0] == 1
    y = launch(
        functools.partial(_attention_kernel, spec=spec, shared_bias=shared),
        (*rows, None if bias is None else bias.reshape(bias.shape[0], -1)),
        jax.ShapeDtypeStruct((batch * height * width, channels), v.dtype),
        kernel="fwd",
        name="neighborhood_attention",
        shape=shape,
        config=config or block_config(shape, spec),
        interpret=interpret,
    )
    return y.reshape(v.shape)


def block_config(shape: ArgShape, spec: AttentionSpec) -> BlockConfig:
    """One load's channels of a head per thread; all taps, a row of them or one at once."""
    block_channels = 1 << (shape.group_channels - 1).bit_length()
    rows, columns = spec.kernel_size
    shared = spec.border != "shift" and 2 * columns <= ROW_LOGITS  # neighbours share keys
    tile_w = min(2, shape.width) if shared else 1
    taps_h, taps_w = 1, 1
    if rows * columns * tile_w <= WINDOW_LOGITS:
        taps_h, taps_w = rows, columns
    elif columns * tile_w <= ROW_LOGITS:
        taps_w = columns
    return BlockConfig(
        block_patches=max(1, THREADS * min(shape.vector_size, block_channels) // block_channels),
        block_channels=block_channels,
        tile_h=1,
        tile_w=tile_w,
        block_taps_h=taps_h,
        block_taps_w=taps_w,
        num_warps=NUM_WARPS,
    )


def _attention_kernel(
    v_ref,
    q_ref,
    k_ref,
    bias_ref,
    y_ref,
    *,
    spec: AttentionSpec,
    shared_bias: bool,
    shape: ArgShape,
    config: BlockConfig,
    memory: Memory,
):
    size = shape.height, shape.width
    patches, channels = tile(shape, config, size)
    image = patches.image((config.tile_h, config.tile_w), size)
    window, moved = _shifted_inside(image, spec) if spec.border == "shift" else (image, None)
    rows, columns = (readers.items() for readers in patch_readers(config, shape.spec))
    read = [(row, column, list(itertools.product(r, c))) for (row, r), (column, c) in itertools.product(rows, columns)]
    positions = list(itertools.product(range(config.tile_h), range(config.tile_w)))

    def load(ref, row: Offset, column: Offset) -> tuple[Array, Array | None]:
        index, inside = window.at(row, column)
        inside = inside if moved is None else None
        return memory.load(ref, (index, channels.numbers), inside, channels.live), inside

    def bias(taps: Taps, i: int, j: int) -> Array:
        number = taps.number(0, i, j)
        if moved is not None:  # by the offset of the key
            (down, right), (half_h, half_w) = moved, (side // 2 for side in spec.kernel_size)
            row = shifted(down, taps.first_row + i + half_h)
            number = row * spec.window[1] + shifted(right, taps.first_column + j + half_w)
        sample = jnp.zeros_like(patches.sample) if shared_bias else patches.sample
        return memory.load(bias_ref, (sample, shifted(channels.group * spec.bias_taps, number)))

    def add_taps(taps: Taps, carry: dict) -> dict:
        row_shift, column_shift = taps.offset
        logits: dict[Any, dict[Any, Array]] = {position: {} for position in positions}
        for row, column, readers in read:
            key, inside = load(k_ref, row + row_shift, column + column_shift)
            for (r, i), (c, j) in readers:
                logit = jnp.sum(queries[r, c] * key, axis=1, keepdims=True)
                if bias_ref is not None:
                    logit += bias(taps, i, j)
                if spec.border == "mask" and inside is not None:
                    logit = jnp.where(inside, logit, -jnp.inf)
                logits[r, c][i, j] = logit
        carry, weights = dict(carry), {}
        for position, of_taps in logits.items():
            before, total, sums = carry[position]
            largest = reduce(jnp.maximum, of_taps.values(), before)
            weights[position] = {tap: _exp(logit - largest) for tap, logit in of_taps.items()}
            decay = _exp(before - largest)
            carry[position] = largest, reduce(lax.add, weights[position].values(), total * decay), sums * decay
        for row, column, readers in read:
            value, _ = load(v_ref, row + row_shift, column + column_shift)
            for (r, i), (c, j) in readers:
                largest, total, sums = carry[r, c]
                carry[r, c] = largest, total, sums + weights[r, c][i, j] * value
        return carry

    queries = {}
    for position in positions:
        query = memory.load(q_ref, (image.clamped(*position), channels.numbers), channels.live)
        queries[position] = spec.scale * query
    total = jnp.zeros((config.block_patches, 1), jnp.float32)
    carry = dict.fromkeys(positions, (total + SMALLEST, total, zeros(config)))
    for position, (_, total, sums) in for_taps(shape.spec, config, add_taps, carry).items():
        index, inside = image.at(*position)
        memory.store(y_ref, (index, channels.numbers), sums / total, inside, channels.live)


def _exp(value: Array) -> Array:
    return jnp.exp2(LOG2_E * value)  # for which a GPU has an instruction, and fewer around it than for exp


def _shifted_inside(image: Image, spec: AttentionSpec) -> tuple[Image, tuple[Array, Array]]:
    """The image relative to the centres of windows shifted inside, and how far they moved, counted in dilations."""
    (row, down), (column, right) = (
        _shifted_axis(axis, side, step)
        for axis, side, step in zip((image.row, image.column), spec.kernel_size, spec.dilation, strict=True)
    )
    return Image(image.sample, row, column), (down, right)


def _shifted_axis(axis: Axis, side: int, step: int) -> tuple[Axis, Array]:
    # Among the pixels a dilation apart, which are numbered here.
    number, rest = axis.origin // step, axis.origin % step
    count = (jnp.uint32(axis.size - 1) - rest) // step + 1
    centre = jnp.clip(number, jnp.uint32(side // 2), count - (side // 2 + 1))
    return Axis(centre * step + rest, axis.size - 1, axis.size), centre - number
