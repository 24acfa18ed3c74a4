"""The portable implementation, written so that XLA compiles it well on a CPU, a TPU, or a GPU without kernels.

Forward and the cotangent of x are sums of shifted views, which XLA fuses into one loop. The cotangents of the filters
reduce over channels and over pixels; as whole-array reductions those are scalar loops on a CPU, so a scan over the rows
of the output computes them as small matrix products on cached data.

Inside, outputs have the axes [B, Ho, S, Wo, S·G, C/G], so that sub-pixels and groups are plain broadcasting and the
upsampled output is a reshape away. No array has more than six axes: where one of seven meets a reduction, XLA's
library for it writes beyond its buffers on a CPU (jaxlib 0.10.2 to 0.11.0, github.com/jax-ml/jax/issues/39257).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.ops.form import Name
from pallas_kernels.ops.implementation import Operands, Results
from pallas_kernels.ops.normalization import normalized, pull_back
from pallas_kernels.ops.spec import FilterSpec, accumulator_dtype

# A fused loop of more terms than this spills its operands: 15×15 runs three times faster in pieces.
TERMS_PER_LOOP = 81

SMALL_ROW = 2**17
"""Bytes of the products of all kernel rows with a row of the output that fit the cache together."""


@functools.partial(jax.jit, static_argnames=("spec", "dtype"), inline=True)  # traced once, whatever calls it
def forward(x: Array, spatial: Array | None, channel: Array | None, spec: FilterSpec, dtype: Any = None) -> Array:
    """y as a sum of shifted views; shapes as in `implementation.Implementation`."""
    batch, height, width, channels = x.shape
    (rows, columns), groups = spec.grid((height, width)), 1 if spatial is None else spatial.shape[-2]
    (view_rows, view_columns), (down, right) = spec.view_size((height, width)), spec.stride
    wide = accumulator_dtype(x, spatial, channel)
    padded, channel = _pad(x, spec), _split_channel(channel, spec, groups)
    spatial = _split_spatial(spatial if spatial is None else _normalized(spatial, wide, spec), spec)
    y = jnp.zeros((), wide)
    for tap in range(spec.taps):
        row, column = spec.tap_offset(tap)
        view = padded[:, row : row + view_rows : down, column : column + view_columns : right].astype(wide)
        view = _for_sub_pixels(view.reshape(batch, rows, 1, columns, groups, channels // groups), spec)
        s = None if spatial is None else spatial[..., tap, None].astype(wide)
        c = None if channel is None else _join_groups(channel[:, :, :, tap])[:, None, :, None].astype(wide)
        y = _in_pieces(y + view * _combine(s, c, spec), tap)
    y = _scaled(y, spec).astype(dtype or x.dtype)
    return y.reshape(batch, spec.scale * rows, spec.scale * columns, channels)


def backward(operands: Operands, results: Results, spec: FilterSpec) -> dict[Name, Array]:
    """Cotangents by hand-derived formulas; shapes as in `implementation.Implementation`."""
    found: dict[Name, Array] = {}
    if "x" in results:
        found["x"] = _x_cotangent(operands, results["x"], spec)
    if filters := {name: struct for name, struct in results.items() if name != "x"}:
        found |= _filter_cotangents(operands, filters, spec)
    return found


def _x_cotangent(operands: Operands, result: jax.ShapeDtypeStruct, spec: FilterSpec) -> Array:
    """dx[q] = Σ over taps and sub-pixels of filter[p] · dy[p], for the position p whose tap reads q, if any.

    With dy and the spatial filter spread out by the stride and padded with zeros this is a sum of shifted views again.
    """
    _, dy, spatial, channel = operands
    assert dy is not None
    _, height, width, _ = result.shape
    groups, wide = 1 if spatial is None else spatial.shape[-2], accumulator_dtype(*operands)
    if spatial is not None:
        spatial = _normalized(spatial, wide, spec)
    channel = _split_channel(channel, spec, groups)
    dy = _spread(_split_output(dy, spec, groups), height, width, spec)
    spatial = _spread(_split_spatial(spatial, spec), height, width, spec)
    dx = jnp.zeros((), wide)
    for term in range(spec.scale**2 * spec.taps):
        sub_pixel, tap = divmod(term, spec.taps)
        i, j = divmod(sub_pixel, spec.scale)
        row, column = (span - offset for span, offset in zip(spec.span, spec.tap_offset(tap), strict=True))
        of_groups = slice(j * groups, (j + 1) * groups)
        at = (slice(None), slice(row, row + height), i, slice(column, column + width), of_groups)
        s = None if spatial is None else spatial[at][..., tap, None].astype(wide)
        c = None if channel is None else channel[:, i, j, tap, None, None].astype(wide)
        dx = _in_pieces(dx + dy[at].astype(wide) * _combine(s, c, spec), term)
    return _scaled(dx, spec).reshape(result.shape).astype(result.dtype)


def _filter_cotangents(operands: Operands, results: Results, spec: FilterSpec) -> dict[Name, Array]:
    """With P[p, t, c] = dy[p, c] · x[p + t, c], dspatial is the sum over a group's c of P · channel, and dchannel the
    sum over p of P · spatial (without that factor where the other filter is None or added). P is computed row by row.
    """
    x, dy, spatial, channel = operands
    assert x is not None
    assert dy is not None
    batch, height, width, channels = x.shape
    (rows, columns), (_, view_columns) = spec.grid((height, width)), spec.view_size((height, width))
    kernel_rows, kernel_columns = spec.kernel_size
    (down, right), (row_step, column_step) = spec.stride, spec.dilation
    grouped = results.get("spatial", spatial)
    groups, wide = 1 if grouped is None else grouped.shape[-2], accumulator_dtype(*operands)
    padded, dy = _pad(x, spec), _split_output(dy, spec, groups)
    multiplied = spec.combine == "mul"
    given = _split_spatial(spatial, spec)
    spatial_factor = channel_factor = None
    if multiplied and spatial is not None and "channel" in results:
        spatial_factor = _split_spatial(_normalized(spatial, wide, spec), spec)
    if multiplied and "spatial" in results:
        channel_factor = _split_channel(channel, spec, groups)
    members = jnp.repeat(jnp.eye(groups, dtype=wide), channels // groups, axis=0)  # [C, G]
    # Kernel rows in one product. Alone, each product stays in the cache; together they are fewer and compile in half
    # the time. That is faster for large kernels, and for all without a channel filter, and no slower for small images.
    row_bytes = batch * kernel_rows * columns * spec.scale**2 * channels * wide.itemsize
    small = isinstance(row_bytes, int) and batch > 1 and row_bytes <= SMALL_ROW  # a symbolic size is no int
    together = kernel_rows if small or kernel_rows > 3 or "channel" not in results else 1

    def add_row(dchannel: Array | None, row: Array) -> tuple[Array | None, Array | None]:
        x_rows = lax.dynamic_slice_in_dim(padded, row * down, spec.span[0] + 1, axis=1)[:, ::row_step]
        dy_row = lax.dynamic_index_in_dim(dy, row, axis=1).astype(wide)
        s_row = jnp.ones((batch, spec.scale, columns, spec.scale * groups, spec.taps), wide)
        if spatial_factor is not None:
            s_row = lax.dynamic_index_in_dim(spatial_factor, row, axis=1, keepdims=False).astype(wide)
        dspatial_pieces, dchannel_pieces = [], []
        for kernel_row in range(0, kernel_rows, together):
            for kernel_column in range(kernel_columns):
                start = kernel_column * column_step
                view = x_rows[:, kernel_row : kernel_row + together, start : start + view_columns : right].astype(wide)
                view = view.reshape(batch, together, 1, columns, groups, channels // groups)
                product = _for_sub_pixels(view, spec) * dy_row
                first = kernel_row * kernel_columns + kernel_column
                taps = slice(first, first + together * kernel_columns, kernel_columns)
                if "spatial" in results:
                    weighted = product
                    if channel_factor is not None:
                        c = _join_groups(jnp.moveaxis(channel_factor[:, :, :, taps], 3, 1))  # [B, K', S, S·G, C/G]
                        weighted = product * c[:, :, :, None].astype(wide)
                    weighted = weighted.reshape(*product.shape[:-2], spec.scale, channels)
                    piece = jnp.matmul(weighted, members, precision="highest")  # [B, K', S, Wo, S, G]
                    dspatial_pieces.append(piece.reshape(*product.shape[:-1]))
                if "channel" in results:
                    s = s_row[..., taps]
                    dchannel_pieces.append(jnp.einsum("bkiwgc,biwgk->bkigc", product, s, precision="highest"))
        if dchannel is not None:
            dchannel += _join_taps(dchannel_pieces, kernel_columns)
        dspatial = None
        if "spatial" in results:
            dspatial = jnp.moveaxis(_join_taps(dspatial_pieces, kernel_columns), 1, -1)  # [B, S, Wo, S·G, T]
            if spec.normalize:
                given_row = lax.dynamic_index_in_dim(given, row, axis=1, keepdims=False)
                dspatial = pull_back(given_row.astype(wide), _scaled(dspatial, spec), spec)
        return dchannel, dspatial

    dchannel: Any = None
    if "channel" in results:
        dchannel = jnp.zeros((batch, spec.taps, spec.scale, spec.scale * groups, channels // groups), wide)
    dspatial: Any
    dchannel, dspatial = lax.scan(add_row, dchannel, jnp.arange(rows))
    found: dict[Name, Array] = {}
    if "spatial" in results:  # [Ho, B, S, Wo, S·G, T] to [B, Ho, Wo, S, S·G, T]
        struct = results["spatial"]
        dspatial = dspatial if spec.normalize else _scaled(dspatial, spec)
        found["spatial"] = dspatial.transpose(1, 0, 3, 2, 4, 5).reshape(struct.shape).astype(struct.dtype)
    if "channel" in results:  # [B, T, S, S, C] to [B, S, S, T, C]
        struct = results["channel"]
        dchannel = _scaled(dchannel, spec).reshape(batch, spec.taps, spec.scale, spec.scale, channels)
        found["channel"] = jnp.moveaxis(dchannel, 1, 3).reshape(struct.shape).astype(struct.dtype)
    return found


def _normalized(spatial: Array, wide: Any, spec: FilterSpec) -> Array:
    """The filter that is used; its dtype is that of the given one where it is the given one."""
    return normalized(spatial.astype(wide), spec) if spec.normalize else spatial


def _scaled(total: Array, spec: FilterSpec) -> Array:
    return total if spec.factor == 1 else spec.factor * total


def _combine(s: Any, c: Any, spec: FilterSpec) -> Any:
    if s is None or c is None:
        return c if s is None else s
    return s * c if spec.combine == "mul" else s + c


def _in_pieces(total: Array, term: int) -> Array:
    return lax.optimization_barrier(total) if (term + 1) % TERMS_PER_LOOP == 0 else total


def _pad(x: Array, spec: FilterSpec) -> Array:
    return jnp.pad(x, ((0, 0), *spec.padding, (0, 0)))


def _spread(array: Array | None, height: int, width: int, spec: FilterSpec) -> Any:
    """Zeros between the positions along Ho and Wo, so that they lie `stride` apart, and around them, for every tap.

    Then tap t reads pixel q from the position at q + span - dilation·t.
    """
    if array is None:
        return None
    config = [(0, 0, 0)] * array.ndim
    grid = spec.grid((height, width))
    for axis, size, count, side in zip((1, 3), (height, width), grid, range(2), strict=True):
        before = spec.span[side] - spec.origin[side]
        last = spec.stride[side] * (count - 1)
        config[axis] = (before, spec.origin[side] + size - 1 - last, spec.stride[side] - 1)
    return lax.pad(array, jnp.zeros((), array.dtype), config)


def _for_sub_pixels(view: Array, spec: FilterSpec) -> Array:
    """[..., G, C/G], to be multiplied by [..., S·G, C/G]."""
    alike = spec.scale == 1 or view.shape[-2] == 1  # then it broadcasts
    return view if alike else jnp.concatenate([view] * spec.scale, axis=-2)


def _split_spatial(spatial: Array | None, spec: FilterSpec) -> Any:
    """[B, Ho, Wo, S², G, T] to [B, Ho, S, Wo, S·G, T]."""
    if spatial is None:
        return None
    batch, rows, columns, _, groups, taps = spatial.shape
    return spatial.reshape(batch, rows, columns, spec.scale, spec.scale * groups, taps).swapaxes(2, 3)


def _split_channel(channel: Array | None, spec: FilterSpec, groups: int) -> Any:
    """[B, S², T, C] to [B, S, S, T, G, C/G]."""
    if channel is None:
        return None
    batch, _, taps, channels = channel.shape
    return channel.reshape(batch, spec.scale, spec.scale, taps, groups, channels // groups)


def _join_groups(channel: Array) -> Array:
    """[..., S, G, C/G] to [..., S·G, C/G]."""
    *leading, scale, groups, members = channel.shape
    return channel.reshape(*leading, scale * groups, members)


def _split_output(y: Array, spec: FilterSpec, groups: int) -> Array:
    """[B, S·Ho, S·Wo, C] to [B, Ho, S, Wo, S·G, C/G]."""
    batch, rows, columns, channels = y.shape
    scale = spec.scale
    return y.reshape(batch, rows // scale, scale, columns // scale, scale * groups, channels // groups)


def _join_taps(pieces: list[Array], columns: int) -> Array:
    """Pieces [B, K', …] in order of kernel rows, then columns, to [B, T, …]."""
    blocks = [jnp.stack(pieces[i : i + columns], axis=2) for i in range(0, len(pieces), columns)]
    taps = jnp.concatenate(blocks, axis=1)
    return taps.reshape(taps.shape[0], taps.shape[1] * columns, *taps.shape[3:])
