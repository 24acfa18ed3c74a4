"""The ReLU whose derivative reads its result."""

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.functional import relu


def test_relu_and_its_derivatives_of_both_modes_and_orders_are_those_of_jax():
    x = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.inf])
    direction = jnp.arange(1.0, 7.0)

    def everything(function):
        square = jax.grad(lambda x: (function(x) ** 2).sum())
        return jax.jvp(function, (x,), (direction,)), jax.vjp(function, x)[1](direction), jax.jvp(square, (x,), (x,))

    for ours, jaxs in zip(*map(jax.tree.leaves, (everything(relu), everything(jax.nn.relu))), strict=True):
        np.testing.assert_array_equal(ours, jaxs)
