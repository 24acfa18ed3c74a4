"""A matrix product for each pixel."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ddf_jax.functional.height import on_rows


def pixel_product(
    x: Array, kernel: Array, dimension_numbers: Any, *, out_sharding: Any = None, **options: Any
) -> Array:
    """`jax.lax.dot_general` of x [B, H, W, C] with a kernel [C, D], as Flax's layers call it: [B, H, W, D].

    The derivative with respect to the kernel contracts all pixels. XLA transposes x in memory for several axes, not for
    one: all pixels are one axis here.
    """
    del dimension_numbers

    def product(x: Array, kernel: Array, padding: tuple[int, int]) -> Array:
        del padding
        y = lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options)
        return jnp.reshape(y, (*x.shape[:-1], kernel.shape[1]), out_sharding=out_sharding)

    return on_rows(product, x, kernel)
