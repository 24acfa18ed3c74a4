"""Filters that differ from channel to channel and from image to image: DDF's other half."""

import math

import numpy as np

from ddf_jax.inspect.tiling import tiled


def filter_grid(filters: np.ndarray) -> np.ndarray:
    """The K×K filters of all channels, row by row in a square: [B, T, C] to [B, rows·K, columns·K].

    Places behind the last channel's are NaN.
    """
    batch, taps, channels = filters.shape
    size, columns = math.isqrt(taps), math.ceil(channels**0.5)
    rows = math.ceil(channels / columns)
    blocks = np.full((batch, rows * columns, size, size), np.nan)
    blocks[:, :channels] = filters.swapaxes(1, 2).reshape(batch, channels, size, size)
    return tiled(blocks.reshape(batch, rows, columns, size, size))
