"""Padding with values of the image itself."""

import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.ops.checks import PaddingMode
from pallas_kernels.ops.spec import Padding


def pad_image(x: Array, padding: Padding, mode: PaddingMode) -> Array:
    """x [..., H, W, C] with a border of its outermost pixel ("replicate") or of its mirror image ("reflect").

    Unlike `jnp.pad` it never slices another axis, which may be sharded.
    """
    for axis, (before, after) in ((x.ndim - 3, padding[0]), (x.ndim - 2, padding[1])):
        parts = [_border(x, axis, before, mode, first=True), x, _border(x, axis, after, mode, first=False)]
        x = jnp.concatenate([part for part in parts if part is not None], axis)
    return x


def _border(x: Array, axis: int, width: int, mode: PaddingMode, *, first: bool) -> Array | None:
    if width == 0:
        return None
    size = x.shape[axis]
    if mode == "reflect":
        start = 1 if first else size - 1 - width
        return lax.rev(lax.slice_in_dim(x, start, start + width, axis=axis), (axis,))
    start = 0 if first else size - 1
    outermost = lax.slice_in_dim(x, start, start + 1, axis=axis)
    return jnp.broadcast_to(outermost, (*x.shape[:axis], width, *x.shape[axis + 1 :]))
