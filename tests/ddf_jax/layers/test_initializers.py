"""Initialisers draw the values of JAX's own, with few programs for many shapes."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.layers.initializers import Uniform, VarianceScaling, normal_fan_in, normal_fan_out, uniform_fan_in

KEY = jax.random.key(3)
SHAPES = ((1, 1), (3, 3, 5, 7), (16, 64), (1, 1, 24, 43))  # 1, 315, 4⁵ and 4⁵ + 8 numbers


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        pytest.param(
            shape,
            dtype,
            marks=() if dtype == "float32" or (shape, dtype) == (SHAPES[1], "bfloat16") else pytest.mark.slow,
        )
        for shape in SHAPES
        for dtype in ("float32", "bfloat16", "float16")
    ],
    ids=str,
)
def test_values_are_jaxs(shape: tuple[int, ...], dtype: str):
    step = float(jnp.finfo(dtype).eps)  # of one rounding: newer versions of JAX compile the two products as one program
    for initializer in (normal_fan_out, normal_fan_in, uniform_fan_in):
        assert isinstance(initializer, VarianceScaling)
        expected = jax.nn.initializers.variance_scaling(initializer.scale, initializer.mode, initializer.distribution)
        values = initializer(KEY, shape, jnp.dtype(dtype))
        assert (values.shape, values.dtype) == (shape, dtype)
        np.testing.assert_allclose(*map(np.float64, (values, expected(KEY, shape, jnp.dtype(dtype)))), rtol=2 * step)
    values = Uniform(0.25)(KEY, shape, jnp.dtype(dtype))
    np.testing.assert_array_equal(values, jax.random.uniform(KEY, shape, jnp.dtype(dtype), -0.25, 0.25))


def test_shapes_of_like_sizes_share_the_program_that_draws(caplog: pytest.LogCaptureFixture):
    key = jax.random.key(3, impl="rbg")  # no other test draws with it: nothing is compiled yet
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for shape in ((9, 30), (17, 19), (32, 32)):
            normal_fan_out(key, shape)
    compiled = [record.getMessage() for record in caplog.records if "XLA compilation" in record.getMessage()]
    assert sum("jit(_normal)" in message for message in compiled) == 1, compiled
