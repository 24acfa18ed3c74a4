"""The only file that knows which JAX version renamed what."""

import jax
from jax import Array
from jax.typing import DTypeLike


def varying_axes(*arrays: Array | None) -> frozenset[str]:
    """The mesh axes over which any of the arrays varies: empty outside `jax.shard_map`."""
    types = [jax.typeof(array).manual_axis_type for array in arrays if array is not None]
    return frozenset().union(*(manual.varying for manual in types))


def kernel_output(shape: tuple[int, ...], dtype: DTypeLike, like: Array) -> jax.ShapeDtypeStruct:
    """The `out_shape` of a `pl.pallas_call` whose output varies over the same axes of `jax.shard_map` as `like`.

    `pl.pallas_call` does not infer the varying axes from its kernel.
    """
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=jax.typeof(like).manual_axis_type)


def varying_like(value: Array, *others: Array | None) -> Array:
    """Marks `value` as varying over every mesh axis that any of `others` varies over: itself outside `jax.shard_map`.

    Its transpose sums over those axes, because all devices contribute to the cotangent of a shared value.
    """
    missing = tuple(sorted(varying_axes(*others) - varying_axes(value)))
    return jax.lax.pcast(value, missing, to="varying") if missing else value
