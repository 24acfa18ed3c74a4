"""Norms of many arrays in few kernels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def squared_norms(arrays: Sequence[jax.Array], *, whole: bool = True) -> jax.Array:
    """The sum of the squares of each array: [arrays].

    Those along the last axes first, with the update of the array. What is left of 32 arrays is summed in one kernel.

    Args:
        arrays: of any shapes.
        whole: False: they are divided over devices, and each is summed by itself.
    """
    if not whole:
        return jnp.stack([jnp.square(array).sum() for array in arrays])
    rows = [jnp.square(jnp.atleast_1d(array)).sum(-1).ravel() for array in arrays]
    rows = [row if row.size <= 2**13 else row.sum(keepdims=True) for row in rows]
    return jnp.concatenate([_sums(rows[first : first + 32]) for first in range(0, len(rows), 32)])


def _sums(rows: Sequence[jax.Array]) -> jax.Array:
    """The sum of each vector: [rows]."""
    longest = max(row.size for row in rows)
    return jnp.stack([jnp.pad(row, (0, longest - row.size)) for row in rows]).sum(1)
