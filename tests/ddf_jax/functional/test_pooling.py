"""Pooling against its formula, and against XLA's own derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.functional import average_pool, halved, max_pool
from tests.ddf_jax.layers import formulas


def test_average_pool_leaves_out_what_is_outside():
    x = formulas.image(1, 5, 7, 2)

    class Pool(nnx.Module):
        def __call__(self, x):
            return average_pool(x, 3)

    formulas.check(Pool(), formulas.average_pool(x, 3), x)


@pytest.mark.parametrize(("pool", "window", "border", "rows"), [(max_pool, 3, 1, 4), (halved, 2, 0, 3)])
def test_pooling_and_its_gradient_where_many_values_are_equal(pool, window, border, rows):
    def reduced(x):
        padding = ((0, 0), (border, border), (border, border), (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, 2, 2, 1), padding)

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-2, 2, (2, 7, 8, 3)), jnp.float32)
    dy = jnp.asarray(rng.integers(-9, 9, (2, rows, 4, 3)), jnp.float32)  # sums of integers are exact

    @jax.jit
    def both_modes(x, dy):
        (y, pull_back), (_, tangent) = jax.vjp(pool, x), jax.jvp(pool, (x,), (x,))
        # The derivative of a derivative: y² has the second derivative 2 along a tangent of the choice.
        _, second = jax.jvp(jax.grad(lambda x: (pool(x) ** 2).sum()), (x,), (x,))
        return y, pool(x), tangent, pull_back(dy)[0], second

    @jax.jit
    def of_xla(x, dy):
        y, pull_back = jax.vjp(reduced, x)
        return y, y, y, pull_back(dy)[0], pull_back(2 * y)[0]

    for value, expected in zip(both_modes(x, dy), of_xla(x, dy), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_the_maximum_of_a_window_with_nan_is_nan():
    x = jnp.ones((3, 7, 6, 1)).at[jnp.arange(3), jnp.array([0, 1, 6]), jnp.array([0, 1, 5])].set(jnp.nan)
    primal, y = jax.jit(lambda x: (jax.jvp(max_pool, (x,), (x,))[0], max_pool(x)))(x)
    np.testing.assert_array_equal(primal, y)
    assert jnp.isnan(primal).any((1, 2, 3)).all()


@pytest.mark.parametrize("pool", [max_pool, halved])
def test_the_gradient_of_pooling_scatters_nothing(pool):
    x = jax.ShapeDtypeStruct((1, 7, 8, 3), jnp.float32)
    assert "scatter" not in jax.jit(jax.grad(lambda x: pool(x).sum())).lower(x).as_text()
