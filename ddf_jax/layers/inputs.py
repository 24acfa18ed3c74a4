"""What every layer does with its input: it checks the shape and chooses the compute dtype."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from ddf_jax.functional import check_feature_map


def as_feature_map(x: Array, channels: int, dtype: DTypeLike | None) -> Array:
    """x [B, H, W, C] in the compute dtype.

    Args:
        x: the input of a layer.
        channels: C.
        dtype: the option `dtype` of the layer.

    Raises:
        UserError: x is not [B, H, W, C] with that C.
    """
    check_feature_map(x, channels)
    return jnp.asarray(x, compute_dtype(x, dtype))


def compute_dtype(x: Array, dtype: DTypeLike | None) -> jnp.dtype:
    """`dtype` if it is given, else that of x; float32 for integers.

    >>> import jax.numpy as jnp
    >>> [compute_dtype(jnp.ones(1, dtype), None).name for dtype in (jnp.bfloat16, jnp.uint8)]
    ['bfloat16', 'float32']
    """
    if dtype is not None:
        return jnp.dtype(dtype)
    return jnp.dtype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32)


def promote_dtype(arrays: Sequence[Array | None], /, *, dtype: Any = None, inexact: bool = True) -> Any:
    """Casts the first array, an input, and its parameters to the compute dtype: the `promote_dtype` of Flax's layers.

    Flax's own takes the widest dtype where `dtype` is None: with parameters in float32 it computes in float32.
    """
    del inexact
    first = arrays[0]
    assert first is not None
    return tuple(None if array is None else jnp.asarray(array, compute_dtype(first, dtype)) for array in arrays)
