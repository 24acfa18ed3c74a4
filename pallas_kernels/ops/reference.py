"""The reference: the formula as a sum over the taps, never optimised. Every other implementation must equal it.

Its backward pass is the automatic derivative of this loop, which the hand-derived ones must equal.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import Array

from pallas_kernels.ops.spec import FilterSpec, accumulator_dtype
from pallas_kernels.ops.vjp import Cotangents, Residuals


def forward(x: Array, spatial: Array | None, channel: Array | None, spec: FilterSpec) -> Array:
    """y as a sum over the taps; shapes as in `vjp.Implementation`."""
    neutral = 1 if spec.combine == "mul" else 0
    dtype = accumulator_dtype(x, spatial, channel)
    batch, height, width, channels = x.shape
    rows, columns = spec.grid_size(height), spec.grid_size(width)
    y = jnp.zeros((batch, rows, columns, spec.scale**2, channels), dtype)
    for tap, view in taps(x.astype(dtype), spec):
        s = c = jnp.full((1, 1, 1, 1, 1), neutral, dtype)
        if spatial is not None:
            s = jnp.repeat(spatial[..., tap].astype(dtype), channels // spatial.shape[-2], axis=-1)
        if channel is not None:
            c = channel[:, None, None, :, tap].astype(dtype)
        y += view[:, :, :, None] * (s * c if spec.combine == "mul" else s + c)
    y = y.reshape(batch, rows, columns, spec.scale, spec.scale, channels).swapaxes(2, 3)
    return y.reshape(batch, spec.scale * rows, spec.scale * columns, channels).astype(x.dtype)


def backward(residuals: Residuals, dy: Array, spec: FilterSpec) -> Cotangents:
    """Cotangents by automatic differentiation of `forward`."""
    _, pull_back = jax.vjp(lambda r: forward(r.x, r.spatial, r.channel, spec), residuals)
    return Cotangents(*pull_back(dy)[0])


def taps(x: Array, spec: FilterSpec) -> Iterator[tuple[int, Array]]:
    """Yields the T shifted, zero-padded and strided views of x, row-major, each [B, Ho, Wo, C]."""
    _, height, width, _ = x.shape
    halo, stride = spec.halo, spec.stride
    padded = jnp.pad(x, ((0, 0), (halo, halo), (halo, halo), (0, 0)))
    for tap in range(spec.taps):
        row, column = spec.tap_offset(tap)
        yield tap, padded[:, row : row + height : stride, column : column + width : stride]
