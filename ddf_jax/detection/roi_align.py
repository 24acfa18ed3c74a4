"""RoIAlign: each box's part of a feature map, resampled to a grid of fixed size."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

WINDOW = 16  # pixels, along both axes, of the parts of a map that are multiplied at once
PARTS = 64  # parts that are multiplied at once


def roi_align(features: Sequence[Array], boxes: Array, levels: Array, strides: Sequence[int], size: int) -> Array:
    r"""Averages of bilinear samples in size×size bins of each box, from one level of a pyramid each.

    A bin has ceil(h / size)·ceil(w / size) samples, where h×w is the box in pixels of its level, as in MMDetection's
    RoIAlign with `sampling_ratio` 0 and `aligned`. They are separable: with the weights of the rows and columns it is

    .. math:: y_{r,i,j} = \sum_{h,w} A_{r,i,h} \, B_{r,j,w} \, x_{h,w}

    of which only the parts are computed where a box has weights.

    Args:
      features: one image's levels [H, W, C]. The result is differentiable with respect to them alone.
      boxes: [R, 4] in pixels of the image.
      levels: number of each box's level [R]; of a negative number the result is 0.
      strides: of the levels.
      size: bins along both axes.

    Returns:
      [R, size, size, C].

    Reference: He et al., "Mask R-CNN", ICCV 2017.
    """
    boxes = jax.lax.stop_gradient(boxes)
    total = jnp.zeros((len(boxes), size, size, features[0].shape[-1]), features[0].dtype)
    for number, (x, stride) in enumerate(zip(features, strides, strict=True)):
        corners = boxes / stride - 0.5  # the middle of the first pixel is at 0
        axes = [
            _axis_weights(corners[:, first], corners[:, first + 2] - corners[:, first], size, length)
            for first, length in ((1, x.shape[0]), (0, x.shape[1]))
        ]
        rows, columns = (jnp.where((levels == number)[:, None, None], weights, 0).astype(x.dtype) for weights in axes)
        total += _weighted(x, rows, columns)
    return total


def levels_of(boxes: Array, count: int, finest: float = 56.0) -> Array:
    """The level of a pyramid of each box [..., 4]: boxes of a side below 2·`finest` on the first."""
    sides = jnp.sqrt((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
    return jnp.clip(jnp.floor(jnp.log2(sides / finest + 1e-6)), 0, count - 1).astype(jnp.int32)


def _axis_weights(start: Array, side: Array, size: int, length: int) -> Array:
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
    """The windows of a map that boxes have weights in; all windows of a box follow each other.

    Args:
      top: first row with a weight of each box [R].
      left: first column [R].
      columns: windows side by side [R].
      ends: windows up to and with those of each box [R].
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
    """Of weights [R, size, length] the first pixel with any, and the windows that cover all of those: [R] each."""
    used = (weights != 0).any(1)
    first, last = jax.lax.argmax(used, 1, jnp.int32), weights.shape[2] - 1 - jax.lax.argmax(used[:, ::-1], 1, jnp.int32)
    return first, jnp.where(used.any(1), (last - first) // WINDOW + 1, 0)


@jax.custom_vjp
def _weighted(x: Array, rows: Array, columns: Array) -> Array:
    """[H, W, C] with weights [R, size, H] and [R, size, W] to [R, size, size, C]."""
    parts, size = _Parts.of(rows, columns), rows.shape[1]
    padded = jnp.pad(x, ((0, WINDOW), (0, WINDOW), (0, 0)))

    def add(number: Array, total: Array) -> Array:
        box, top, left, live = parts.block(number)
        a, b = _of_windows(rows, box, top), _of_windows(columns, box, left)
        y = jnp.einsum("nih,nhwc->niwc", a, _windows_of(padded, top, left))
        y = jnp.einsum("niwc,njw->nijc", y, b)
        return total.at[box].add(jnp.where(live[:, None, None, None], y, 0))

    return jax.lax.fori_loop(0, parts.blocks, add, jnp.zeros((len(rows), size, size, x.shape[2]), x.dtype))


@jax.custom_vjp
def _spread(dy: Array, rows: Array, columns: Array) -> Array:
    """The transpose of `_weighted`: [R, size, size, C] to [H, W, C]."""
    parts, channels = _Parts.of(rows, columns), dy.shape[3]
    shape = rows.shape[2] + WINDOW, columns.shape[2] + WINDOW, channels

    def add(number: Array, total: Array) -> Array:
        box, top, left, live = parts.block(number)
        a, b = _of_windows(rows, box, top), _of_windows(columns, box, left)
        given = jnp.where(live[:, None, None, None], dy[box], 0)
        windows = jnp.einsum("nih,niwc->nhwc", a, jnp.einsum("nijc,njw->niwc", given, b))
        [spread] = jax.linear_transpose(lambda x: _windows_of(x, top, left), total)(windows)
        return total + spread

    total = jax.lax.fori_loop(0, parts.blocks, add, jnp.zeros(shape, dy.dtype))
    return total[: rows.shape[2], : columns.shape[2]]


def _of_windows(weights: Array, box: Array, first: Array) -> Array:
    """[R, size, length] to [PARTS, size, WINDOW]."""
    padded = jnp.pad(weights, ((0, 0), (0, 0), (0, WINDOW)))[box]
    return jax.vmap(lambda of_box, start: jax.lax.dynamic_slice_in_dim(of_box, start, WINDOW, 1))(padded, first)


def _windows_of(x: Array, top: Array, left: Array) -> Array:
    """[H, W, C] to [PARTS, WINDOW, WINDOW, C]."""
    size = (WINDOW, WINDOW, x.shape[2])
    return jax.vmap(lambda row, column: jax.lax.dynamic_slice(x, (row, column, jnp.int32(0)), size))(top, left)


def _keep(function: Callable[..., Array]) -> Callable[..., tuple[Array, tuple[Array, Array]]]:
    return lambda value, rows, columns: (function(value, rows, columns), (rows, columns))


_weighted.defvjp(_keep(_weighted), lambda weights, dy: (_spread(dy, *weights), None, None))
_spread.defvjp(_keep(_spread), lambda weights, dx: (_weighted(dx, *weights), None, None))
