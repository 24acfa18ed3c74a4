"""Convolutions: the programs they compile to."""

import jax
import jax.numpy as jnp
from flax import nnx

from ddf_jax.layers import PointwiseConv


def test_the_gradient_of_a_pointwise_kernel_transposes_no_feature_map():
    structure, state = nnx.split(nnx.eval_shape(lambda: PointwiseConv(3, 5, rngs=nnx.Rngs(0))))

    def loss(state, x):
        return jnp.sin(nnx.merge(structure, state)(jnp.cos(x))).sum()

    x = jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.float32)
    program = str(jax.jit(jax.grad(loss, argnums=(0, 1))).lower(state, x).compile().as_text())
    assert "f32[32,5]" in program
    assert "f32[3,32]" not in program
    assert "f32[5,32]" not in program
