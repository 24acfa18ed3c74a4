"""Averages, with sums in float32 (float64 for float64), and maxima."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ddf_jax.functional.height import on_rows
from ddf_jax.functional.views import strided
from pallas_kernels import accumulator_dtype


def global_average(x: Array) -> Array:
    """The mean over all pixels: [B, H, W, C] to [B, C]."""
    wide = x.astype(accumulator_dtype(x)).sum((1, 2)) * (1 / max(x.shape[1] * x.shape[2], 1))
    return wide.astype(x.dtype)


def maximum(x: Array, *axes: int) -> Array:
    """`x.max(axes)` as one pooling window: over axes 1 and 2, [B, H, W, C] to [B, C].

    The gradient of `jnp.max` compares x with its maximum. If XLA computes x twice with different rounding, no element
    equals the maximum and the gradient divides by a count of 0. The gradient of pooling selects a position instead.
    """

    def of_window(x: Array, rows: tuple[int, int] = (0, 0)) -> Array:
        del rows
        window = tuple(length if axis in axes else 1 for axis, length in enumerate(x.shape))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")

    y = on_rows(of_window, x)
    return (of_window(y) if 1 in axes and y.shape[1] > 1 else y).squeeze(axes)  # of several devices, the largest


def max_pool(x: Array) -> Array:
    """The maximum of each 3×3 window, 2 pixels apart: [B, H, W, C] to [B, ceil(H/2), ceil(W/2), C].

    The gradient goes to the first maximum of a window in row-major order, as torch's.
    """
    return on_rows(_max_pool, x, padding=(1, 1), span=2, stride=2, fill=-jnp.inf)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_pool(x: Array, rows: tuple[int, int]) -> Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), rows, (1, 1), (0, 0)))


@_max_pool.defjvp
def _max_pool_derivative(rows: tuple[int, int], primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # On a CPU the derivative of `reduce_window` scatters through an array of indices, several times slower.
    return jax.jvp(lambda x: _maxima_of_three(_maxima_of_three(x, 2, (1, 1)), 1, rows), primals, tangents)


def _maxima_of_three(x: Array, axis: int, padding: tuple[int, int]) -> Array:
    """`max_pool` along one axis, by comparisons."""
    before, after = padding
    count = (x.shape[axis] + before + after - 3) // 2 + 1
    border = [(0, 0)] * x.ndim
    border[axis] = (before, 2 * (count + 1) - before - x.shape[axis])
    padded = jnp.pad(x, border, constant_values=-jnp.inf)
    pairs = padded.reshape(*x.shape[:axis], count + 1, 2, *x.shape[axis + 1 :])
    even, odd = (jax.lax.index_in_dim(pairs, parity, axis + 1, keepdims=False) for parity in (0, 1))
    views = (jax.lax.slice_in_dim(v, start, start + count, axis=axis) for v, start in ((even, 0), (odd, 0), (even, 1)))
    return functools.reduce(_larger, views)


def _larger(x: Array, y: Array) -> Array:
    """The larger one; x where they are equal; NaN where one is NaN."""
    return jnp.where((y > x) | jnp.isnan(y), y, x)


def halved(x: Array) -> Array:
    """The maximum of each 2×2 block: [B, H, W, C] to [B, ⌊H/2⌋, ⌊W/2⌋, C]; a last odd row or column is left out.

    The gradient goes to the first maximum of a block in row-major order, as torch's.
    """
    return on_rows(_halved, x, span=1, stride=2)


def _halved(x: Array, padding: tuple[int, int]) -> Array:
    del padding
    batch, height, width, channels = x.shape
    # Of an even size, a symbolic half is ⌊H/2⌋, which `jax.export` knows to be no less than 0.
    return _maxima_of_blocks(jax.lax.slice(x, (0, 0, 0, 0), (batch, height // 2 * 2, width // 2 * 2, channels)))


@jax.custom_jvp
def _maxima_of_blocks(x: Array) -> Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@_maxima_of_blocks.defjvp
def _maxima_of_blocks_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    def by_comparisons(x: Array) -> Array:
        size = (x.shape[1] - 1, x.shape[2] - 1)
        return functools.reduce(_larger, (strided(x, 2, start=at, size=size) for at in np.ndindex(2, 2)))

    return jax.jvp(by_comparisons, primals, tangents)


def average_pool(x: Array, size: int) -> Array:
    """The mean of each size×size window: [B, H, W, C] to [B, ceil(H/size), ceil(W/size), C].

    Where the size does not divide H or W, the last windows have fewer pixels.
    """
    return x if size == 1 else on_rows(functools.partial(_average_pool, size), x, span=size - 1, stride=size)


def _average_pool(size: int, x: Array, padding: tuple[int, int]) -> Array:
    del padding
    sides = x.shape[1:3]
    counts = [(side - 1) // size + 1 for side in sides]
    wide = x.astype(accumulator_dtype(x))
    window = (1, size, size, 1)
    border = ((0, 0), *((0, size * count - side) for side, count in zip(sides, counts, strict=True)), (0, 0))
    sums = jax.lax.reduce_window(wide, 0.0, jax.lax.add, window, window, border)
    rows, columns = (jnp.minimum(size, side - size * jnp.arange(n)) for side, n in zip(sides, counts, strict=True))
    pixels = jnp.outer(rows, columns)[None, :, :, None]  # of each window
    return (sums / pixels.astype(wide.dtype)).astype(x.dtype)
