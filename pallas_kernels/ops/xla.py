"""The portable implementation, written so that XLA compiles it well on a CPU, a TPU, or a GPU without kernels.

Forward and the cotangent of x are sums of shifted views, which XLA fuses into one loop. The cotangents of the filters
reduce over channels and over pixels; as whole-array reductions those are scalar loops on a CPU, so a scan over the rows
of the output computes them as small matrix products on cached data.

Inside, outputs have the axes [B, Ho, S, Wo, S, G, C/G], so that sub-pixels and groups are plain broadcasting and the
upsampled output is a reshape away.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels import compat
from pallas_kernels.ops.spec import FilterSpec, accumulator_dtype
from pallas_kernels.ops.vjp import Cotangents, Residuals

# A fused loop of more terms than this spills its operands: 15×15 runs three times faster in pieces.
TERMS_PER_LOOP = 81


@functools.partial(jax.jit, static_argnames="spec", inline=True)  # traced once for each shape, whatever calls it
def forward(x: Array, spatial: Array | None, channel: Array | None, spec: FilterSpec) -> Array:
    """y as a sum of shifted views; shapes as in `vjp.Implementation`."""
    batch, height, width, channels = x.shape
    rows, columns, groups = spec.grid_size(height), spec.grid_size(width), _groups(spatial)
    dtype = accumulator_dtype(x, spatial, channel)
    padded, spatial, channel = _pad_halo(x, spec), _split_spatial(spatial, spec), _split_channel(channel, spec, groups)
    y = jnp.zeros((), dtype)
    for tap in range(spec.taps):
        row, column = spec.tap_offset(tap)
        view = padded[:, row : row + height : spec.stride, column : column + width : spec.stride].astype(dtype)
        view = view.reshape(batch, rows, 1, columns, 1, groups, channels // groups)
        s = None if spatial is None else spatial[..., tap, None].astype(dtype)
        c = None if channel is None else channel[:, None, :, None, :, tap].astype(dtype)
        y = _in_pieces(y + view * _combine(s, c, spec), tap)
    return y.astype(x.dtype).reshape(batch, spec.scale * rows, spec.scale * columns, channels)


def backward(residuals: Residuals, dy: Array, spec: FilterSpec) -> Cotangents:
    """Cotangents by hand-derived formulas; shapes as in `vjp.Implementation`."""
    dspatial, dchannel = _filter_cotangents(residuals, dy, spec)
    return Cotangents(_x_cotangent(residuals, dy, spec), dspatial, dchannel)


def _x_cotangent(residuals: Residuals, dy: Array, spec: FilterSpec) -> Array:
    """dx[q] = Σ over taps and sub-pixels of filter[p] · dy[p], for the position p whose tap reads q, if any.

    With dy and the spatial filter spread out by the stride and padded with zeros this is a sum of shifted views again.
    """
    x, spatial, channel = residuals
    _, height, width, _ = x.shape
    groups, dtype = _groups(spatial), accumulator_dtype(*residuals)
    dy, channel = _split_output(dy, spec, groups), _split_channel(channel, spec, groups)
    dy = _spread(dy, height, width, spec)
    spatial = _spread(_split_spatial(spatial, spec), height, width, spec)
    dx = jnp.zeros((), dtype)
    for term in range(spec.scale**2 * spec.taps):
        sub_pixel, tap = divmod(term, spec.taps)
        i, j = divmod(sub_pixel, spec.scale)
        row, column = (2 * spec.halo - offset for offset in spec.tap_offset(tap))
        at = (slice(None), slice(row, row + height), i, slice(column, column + width), j)
        s = None if spatial is None else spatial[at][..., tap, None].astype(dtype)
        c = None if channel is None else channel[:, None, i, None, j, tap].astype(dtype)
        dx = _in_pieces(dx + dy[at].astype(dtype) * _combine(s, c, spec), term)
    return dx.reshape(x.shape).astype(x.dtype)


def _filter_cotangents(residuals: Residuals, dy: Array, spec: FilterSpec) -> tuple[Array | None, Array | None]:
    """With P[p, t, c] = dy[p, c] · x[p + t, c], dspatial is the sum over a group's c of P · channel, and dchannel the
    sum over p of P · spatial (without that factor where the other filter is None or added). P is computed row by row.
    """
    x, spatial, channel = residuals
    batch, height, width, channels = x.shape
    rows, columns, groups = spec.grid_size(height), spec.grid_size(width), _groups(spatial)
    dtype, kernel_size = accumulator_dtype(*residuals), spec.kernel_size
    padded, dy = _pad_halo(x, spec), _split_output(dy, spec, groups)
    multiplied = spec.combine == "mul"
    spatial_factor = _split_spatial(spatial, spec) if multiplied else None
    channel_factor = _split_channel(channel, spec, groups) if multiplied else None
    members = jnp.repeat(jnp.eye(groups, dtype=dtype), channels // groups, axis=0)  # [C, G]
    # Kernel rows in one product. Alone, each product stays in the cache; together they are fewer and compile sooner,
    # which is faster for large kernels, and for all without a channel filter.
    together = 1 if kernel_size <= 3 and channel is not None else kernel_size

    def add_row(dchannel: Array | None, row: Array) -> tuple[Array | None, Array | None]:
        x_rows = lax.dynamic_slice_in_dim(padded, row * spec.stride, 2 * spec.halo + 1, axis=1)[:, :: spec.dilation]
        dy_row = lax.dynamic_index_in_dim(dy, row, axis=1).astype(dtype)
        ones = jnp.ones((batch, spec.scale, columns, spec.scale, groups, spec.taps), dtype)
        s_row = ones
        if spatial_factor is not None:
            s_row = lax.dynamic_index_in_dim(spatial_factor, row, axis=1, keepdims=False).astype(dtype)
        dspatial_pieces, dchannel_pieces = [], []
        for kernel_row in range(0, kernel_size, together):
            for kernel_column in range(kernel_size):
                start = kernel_column * spec.dilation
                view = x_rows[:, kernel_row : kernel_row + together, start : start + width : spec.stride].astype(dtype)
                product = view.reshape(batch, together, 1, columns, 1, groups, channels // groups) * dy_row
                first = kernel_row * kernel_size + kernel_column
                taps = slice(first, first + together * kernel_size, kernel_size)
                if spatial is not None:
                    weighted = product
                    if channel_factor is not None:
                        c = jnp.moveaxis(channel_factor[:, :, :, taps], 3, 1)  # [B, K', S, S, G, C/G]
                        weighted = product * c[:, :, :, None].astype(dtype)
                    weighted = weighted.reshape(*product.shape[:-2], channels)
                    dspatial_pieces.append(jnp.matmul(weighted, members, precision="highest"))
                if channel is not None:
                    s = s_row[..., taps]
                    dchannel_pieces.append(jnp.einsum("bkiwjgc,biwjgk->bkijgc", product, s, precision="highest"))
        if dchannel is not None:
            dchannel += _join_taps(dchannel_pieces, kernel_size)
        return dchannel, _join_taps(dspatial_pieces, kernel_size) if spatial is not None else None

    dchannel: Any = None
    if channel is not None:
        zeros = jnp.zeros((batch, spec.taps, spec.scale, spec.scale, groups, channels // groups), dtype)
        dchannel = compat.varying_like(zeros, *residuals, dy)
    dspatial: Any
    dchannel, dspatial = lax.scan(add_row, dchannel, jnp.arange(rows))
    if spatial is not None:  # [Ho, B, T, S, Wo, S, G] to [B, Ho, Wo, S, S, G, T]
        dspatial = dspatial.transpose(1, 0, 4, 3, 5, 6, 2).reshape(spatial.shape).astype(spatial.dtype)
    if channel is not None:  # [B, T, S, S, G, C/G] to [B, S, S, T, G, C/G]
        dchannel = jnp.moveaxis(dchannel, 1, 3).reshape(channel.shape).astype(channel.dtype)
    return dspatial, dchannel


def _groups(spatial: Array | None) -> int:
    return 1 if spatial is None else spatial.shape[-2]


def _combine(s: Any, c: Any, spec: FilterSpec) -> Any:
    if s is None or c is None:
        return c if s is None else s
    return s * c if spec.combine == "mul" else s + c


def _in_pieces(total: Array, term: int) -> Array:
    return lax.optimization_barrier(total) if (term + 1) % TERMS_PER_LOOP == 0 else total


def _pad_halo(x: Array, spec: FilterSpec) -> Array:
    border = (spec.halo, spec.halo)
    return jnp.pad(x, ((0, 0), border, border, (0, 0)))


def _spread(array: Array | None, height: int, width: int, spec: FilterSpec) -> Any:
    """Zeros between the positions along Ho and Wo, so that they lie `stride` apart, and around them, for every tap."""
    if array is None:
        return None
    config = [(0, 0, 0)] * array.ndim
    for axis, size in ((1, height), (3, width)):
        last = spec.stride * (spec.grid_size(size) - 1)
        config[axis] = (spec.halo, spec.halo + size - 1 - last, spec.stride - 1)
    return lax.pad(array, jnp.zeros((), array.dtype), config)


def _split_spatial(spatial: Array | None, spec: FilterSpec) -> Any:
    """[B, Ho, Wo, S², G, T] to [B, Ho, S, Wo, S, G, T]."""
    if spatial is None:
        return None
    batch, rows, columns, _, groups, taps = spatial.shape
    return spatial.reshape(batch, rows, columns, spec.scale, spec.scale, groups, taps).swapaxes(2, 3)


def _split_channel(channel: Array | None, spec: FilterSpec, groups: int) -> Any:
    """[B, S², T, C] to [B, S, S, T, G, C/G]."""
    if channel is None:
        return None
    batch, _, taps, channels = channel.shape
    return channel.reshape(batch, spec.scale, spec.scale, taps, groups, channels // groups)


def _split_output(y: Array, spec: FilterSpec, groups: int) -> Array:
    """[B, S·Ho, S·Wo, C] to [B, Ho, S, Wo, S, G, C/G]."""
    batch, rows, columns, channels = y.shape
    scale = spec.scale
    return y.reshape(batch, rows // scale, scale, columns // scale, scale, groups, channels // groups)


def _join_taps(pieces: list[Array], kernel_size: int) -> Array:
    """Pieces [B, K', …] in order of kernel rows, then columns, to [B, T, …]."""
    blocks = [jnp.stack(pieces[i : i + kernel_size], axis=2) for i in range(0, len(pieces), kernel_size)]
    taps = jnp.concatenate(blocks, axis=1)
    return taps.reshape(taps.shape[0], kernel_size**2, *taps.shape[3:])
