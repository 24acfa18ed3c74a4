"""The only file that knows which JAX version renamed what."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import jax
from jax import Array
from jax.core import ShapedArray
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike


def varying_axes(*arrays: Array | None) -> frozenset[str]:
    """The mesh axes over which any of the arrays varies: empty outside `jax.shard_map`."""
    types = [jax.typeof(array).manual_axis_type for array in arrays if array is not None]
    return frozenset().union(*(manual.varying for manual in types))


def array_type(shape: tuple[int, ...], dtype: DTypeLike, like: Any) -> Any:
    """The type of an array on one device, which varies over the same axes of `jax.shard_map` as one of type `like`."""
    sharding = NamedSharding(like.sharding.mesh, PartitionSpec(*(None,) * len(shape)))
    return ShapedArray(shape, dtype, sharding=sharding, manual_axis_type=like.manual_axis_type)


def plain_type(like: Any) -> Any:
    """The type of shape and dtype alone."""
    return ShapedArray(like.shape, like.dtype)


def no_mosaic_gpu() -> str | None:
    """Why this JAX has no Mosaic GPU as the kernels need it, or None where it has."""
    if jax.__version_info__ >= (0, 11):
        return None
    return f"needs JAX 0.11 or newer, here is {jax.__version__}."


@contextlib.contextmanager
def without_triton_deprecation() -> Iterator[None]:
    """Lowers Triton kernels without the warning of JAX 0.11 and later that their back end will be removed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
        yield


def kernel_output(struct: jax.ShapeDtypeStruct, like: Array) -> jax.ShapeDtypeStruct:
    """An `out_shape` of a `pl.pallas_call` that varies over the same axes of `jax.shard_map` as `like`.

    `pl.pallas_call` does not infer the varying axes from its kernel.
    """
    return jax.ShapeDtypeStruct(struct.shape, struct.dtype, manual_axis_type=jax.typeof(like).manual_axis_type)


def varying_like(value: Array, *others: Array | None) -> Array:
    """Marks `value` as varying over every mesh axis that any of `others` varies over: itself outside `jax.shard_map`.

    Its transpose sums over those axes, because all devices contribute to the cotangent of a shared value.
    """
    missing = tuple(sorted(varying_axes(*others) - varying_axes(value)))
    return jax.lax.pcast(value, missing, to="varying") if missing else value
