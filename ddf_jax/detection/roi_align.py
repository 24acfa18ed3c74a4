"""RoIAlign: each box's part of a feature map, resampled to a grid of fixed size."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ddf_jax.detection.per_image import per_image

WINDOW = 16  # pixels, along both axes, of the parts of a map that are multiplied at once
PARTS = 32  # parts that are multiplied at once: 32 windows of 256 channels in float32 are 8 MiB

Levels = tuple[Array, ...]
"""An array of each level of a pyramid."""


def roi_align(features: Sequence[Array], boxes: Array, levels: Array, strides: Sequence[int], size: int) -> Array:
    r"""Averages of bilinear samples in size×size bins of each box, from one level of a pyramid each.

    A bin has ceil(h / size)·ceil(w / size) samples, where h×w is the box in pixels of its level, as in MMDetection's
    RoIAlign with `sampling_ratio` 0 and `aligned`. They are separable: with the weights of the rows and columns it is

    .. math:: y_{r,i,j} = \sum_{h,w} A_{r,i,h} \, B_{r,j,w} \, x_{h,w}

    of which only the parts are computed where a box has weights.

    Args:
      features: levels [B, H, W, C]. The result is differentiable with respect to them alone.
      boxes: [B, R, 4] in pixels of the image.
      levels: number of each box's level [B, R]; of a negative number the result is 0.
      strides: of the levels.
      size: bins along both axes.

    Returns:
      [B, R, size, size, C].

    Reference: He et al., "Mask R-CNN", ICCV 2017.
    """
    weights = [
        per_image(functools.partial(_weights, number, stride, size, x.shape[1:3], x.dtype), boxes, levels)
        for number, (x, stride) in enumerate(zip(features, strides, strict=True))
    ]
    rows, columns = zip(*weights, strict=True)
    return _weighted(tuple(features), rows, columns)


def levels_of(boxes: Array, count: int, finest: float = 56.0) -> Array:
    """The level of a pyramid of each box [..., 4]: boxes of a side below 2·`finest` on the first."""
    sides = jnp.sqrt((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
    return jnp.clip(jnp.floor(jnp.log2(sides / finest + 1e-6)), 0, count - 1).astype(jnp.int32)


def _weights(
    level: int, stride: int, size: int, shape: tuple[int, ...], dtype: jnp.dtype, boxes: Array, levels: Array, _: Any
) -> tuple[Array, Array]:
    """The weights of a level's rows and columns for each bin: [B, R, size, H] and [B, R, size, W]."""
    corners = boxes.reshape(-1, 4) / stride - 0.5  # the middle of the first pixel is at 0
    axes = [
        axis_weights(corners[:, first], corners[:, first + 2] - corners[:, first], size, length)
        for first, length in ((1, shape[0]), (0, shape[1]))
    ]
    on_level = (levels.reshape(-1) == level)[:, None, None]
    rows, columns = (
        jnp.where(on_level, weights, 0).astype(dtype).reshape(*boxes.shape[:2], *weights.shape[1:]) for weights in axes
    )
    return rows, columns


def axis_weights(start: Array, side: Array, size: int, length: int) -> Array:
    """The weights of `length` pixels for each bin of each box along an axis: [R] and [R] to [R, size, length]."""
    bins = side / size
    samples = jnp.ceil(bins)
    most = max(1, -(-length // size) + 1)  # samples of a bin within the map, as more than these lie outside
    sample = jnp.arange(most, dtype=start.dtype)[None, None]
    spread = (bins / jnp.maximum(samples, 1))[:, None, None]
    first = (start[:, None] + jnp.arange(size, dtype=start.dtype)[None] * bins[:, None])[:, :, None]
    place = first + (sample + 0.5) * spread
    live = (sample < samples[:, None, None]) & (place >= -1) & (place <= length)
    place = jnp.clip(place, 0, length - 1)
    low = jnp.floor(place).astype(jnp.int32)
    high = jnp.minimum(low + 1, length - 1)
    share = jnp.where(live, 1 / jnp.maximum(samples, 1)[:, None, None], 0)
    upper = place - low.astype(place.dtype)
    boxes, number = jnp.arange(len(start))[:, None, None], jnp.arange(size)[None, :, None]
    weights = jnp.zeros((len(start), size, length), start.dtype)
    return weights.at[boxes, number, low].add(share * (1 - upper)).at[boxes, number, high].add(share * upper)


class _Parts(NamedTuple):
    """The windows of a batch's maps that boxes have weights in; all windows of a box follow each other.

    Args:
      top: first row with a weight of each box [B·R].
      left: first column [B·R].
      columns: windows side by side [B·R].
      ends: windows up to and with those of each box [B·R].
    """

    top: Array
    left: Array
    columns: Array
    ends: Array

    @classmethod
    def of(cls, rows: Array, columns: Array) -> "_Parts":
        (top, down), (left, right) = (_windows(weights) for weights in (rows, columns))
        return cls(top, left, right, jnp.cumsum(down * right, dtype=jnp.int32))

    def block(self, number: Array) -> tuple[Array, Array, Array, Array]:
        """Of some windows: the box, the first row and column, and whether there is such a window; [PARTS] each."""
        window = number * PARTS + jnp.arange(PARTS, dtype=jnp.int32)
        box = jnp.minimum(jnp.searchsorted(self.ends, window, side="right"), jnp.int32(len(self.ends) - 1))
        within = window - jnp.where(box > 0, self.ends[box - 1], 0)
        row, column = jnp.divmod(within, jnp.maximum(self.columns[box], 1))
        live = window < self.ends[-1]
        return box, self.top[box] + WINDOW * row, self.left[box] + WINDOW * column, live

    @property
    def blocks(self) -> Array:
        return (self.ends[-1] + PARTS - 1) // PARTS


def _windows(weights: Array) -> tuple[Array, Array]:
    """Of weights [B·R, size, length] the first pixel with any, and the windows that cover all of those: [B·R] each."""
    used = (weights != 0).any(1)
    first, last = jax.lax.argmax(used, 1, jnp.int32), weights.shape[2] - 1 - jax.lax.argmax(used[:, ::-1], 1, jnp.int32)
    return first, jnp.where(used.any(1), (last - first) // WINDOW + 1, 0)


@jax.custom_vjp
def _weighted(features: Levels, rows: Levels, columns: Levels) -> Array:
    """Levels [B, H, W, C] with weights [B, R, size, H] and [B, R, size, W] to the sum of all, [B, R, size, size, C]."""
    return per_image(_weighted_on_device, features, rows, columns)


@jax.custom_vjp
def _spread(dy: Array, rows: Levels, columns: Levels) -> Levels:
    """The transpose of `_weighted`: [B, R, size, size, C] to levels [B, H, W, C]."""
    return per_image(_spread_on_device, dy, rows, columns)


def _weighted_on_device(features: Levels, rows: Levels, columns: Levels, _: Any) -> Array:
    batch, count, size = rows[0].shape[:3]
    total = jnp.zeros((batch * count, size, size, features[0].shape[3]), features[0].dtype)
    for x, *weights in zip(features, rows, columns, strict=True):
        total = _add_level(total, x, *(of_axis.reshape(-1, *of_axis.shape[2:]) for of_axis in weights))
    return total.reshape(batch, count, *total.shape[1:])


def _add_level(total: Array, x: Array, rows: Array, columns: Array) -> Array:
    """Adds what a level [B, H, W, C] gives to the boxes [B·R, size, size, C]."""
    parts, count = _Parts.of(rows, columns), len(rows) // len(x)

    def add(number: Array, total: Array) -> Array:
        box, top, left, live = parts.block(number)
        (top, a), (left, b) = _of_windows(rows, box, top, live), _of_windows(columns, box, left, live)
        windows = _windows_of(x, box // count, top, left)
        y = jnp.einsum("nih,nhwc->niwc", a, windows)
        # A product for each bin's row: with one for each window XLA would transpose y.
        b = jnp.broadcast_to(b[:, None], (*a.shape[:2], *b.shape[1:]))
        return total.at[box].add(jnp.einsum("nijw,niwc->nijc", b, y))

    return jax.lax.fori_loop(0, parts.blocks, add, total)


def _spread_on_device(dy: Array, rows: Levels, columns: Levels, _: Any) -> Levels:
    flat = dy.reshape(-1, *dy.shape[2:])
    return tuple(
        _spread_to_level(flat, len(dy), *(of_axis.reshape(-1, *of_axis.shape[2:]) for of_axis in weights))
        for weights in zip(rows, columns, strict=True)
    )


def _spread_to_level(dy: Array, batch: int, rows: Array, columns: Array) -> Array:
    """The boxes' [B·R, size, size, C] to a level [B, H, W, C]."""
    parts, count = _Parts.of(rows, columns), len(rows) // batch

    def add(number: Array, total: Array) -> Array:
        box, top, left, live = parts.block(number)
        (top, a), (left, b) = _of_windows(rows, box, top, live), _of_windows(columns, box, left, live)
        windows = jnp.einsum("nih,niwc->nhwc", a, jnp.einsum("nijc,njw->niwc", dy[box], b))
        down, across = (jnp.arange(length, dtype=jnp.int32)[None] for length in windows.shape[1:3])
        places = (box // count)[:, None, None], (top[:, None] + down)[:, :, None], (left[:, None] + across)[:, None]
        return total.at[places].add(windows)

    total = jnp.zeros((batch, rows.shape[2], columns.shape[2], dy.shape[3]), dy.dtype)
    return jax.lax.fori_loop(0, parts.blocks, add, total)


def _of_windows(weights: Array, box: Array, first: Array, live: Array) -> tuple[Array, Array]:
    """The first pixels of the windows, moved into the map [PARTS], and their weights [PARTS, size, WINDOW or length].

    Args:
      weights: [B·R, size, length].
      box: [PARTS].
      first: pixel of each window [PARTS].
      live: whether there is such a window [PARTS].
    """
    length = weights.shape[2]
    width = min(WINDOW, length)
    start = jnp.clip(first, 0, length - width)
    pixel = start[:, None] + jnp.arange(width, dtype=jnp.int32)[None]
    counts = (pixel >= first[:, None]) & live[:, None]  # of moved windows, the pixels before belong to another one
    cut = jax.vmap(lambda of_box, start: jax.lax.dynamic_slice_in_dim(of_box, start, width, 1))(weights[box], start)
    return start, jnp.where(counts[:, None], cut, 0)


def _windows_of(x: Array, image: Array, top: Array, left: Array) -> Array:
    """[B, H, W, C] to [PARTS, WINDOW or H, WINDOW or W, C]."""
    size = (1, min(WINDOW, x.shape[1]), min(WINDOW, x.shape[2]), x.shape[3])
    places = image, top, left
    return jax.vmap(lambda *place: jax.lax.dynamic_slice(x, (*place, jnp.int32(0)), size)[0])(*places)


def _keep(function: Callable[..., Any]) -> Callable[..., tuple[Any, tuple[Levels, Levels]]]:
    return lambda value, rows, columns: (function(value, rows, columns), (rows, columns))


_weighted.defvjp(_keep(_weighted), lambda weights, dy: (_spread(dy, *weights), None, None))
_spread.defvjp(_keep(_spread), lambda weights, dx: (_weighted(dx, *weights), None, None))
