"""Strided views, whose symbolic sizes equal those of a convolution."""

import jax
from jax import Array


def strided(x: Array, stride: int, *, start: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None) -> Array:
    """Every `stride`-th pixel of a window: [B, H, W, C] to [B, ceil(h/stride), ceil(w/stride), C].

    The side of an output is written (h - 1) // stride + 1, as that of a convolution. ``x[:, ::stride]`` writes it in
    another way, and for `jax.export` two symbolic sizes are equal only where they are written alike.

    Args:
        x: [B, H, W, C].
        stride: the distance in pixels of x, in both directions.
        start: row and column of the window's first pixel.
        size: h and w, the window's sides (default: those of x).

    >>> import jax.numpy as jnp
    >>> strided(jnp.arange(20).reshape(1, 4, 5, 1), 2)[0, :, :, 0].tolist()
    [[0, 2, 4], [10, 12, 14]]
    """
    (row, column), (height, width) = start, size or x.shape[1:3]
    limit = (x.shape[0], row + height, column + width, x.shape[3])
    return jax.lax.slice(x, (0, row, column, 0), limit, (1, stride, stride, 1))
