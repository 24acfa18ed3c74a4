"""What every layer does unless it is told otherwise."""

import inspect

import jax.numpy as jnp
import pytest

from ddf_jax import layers

LAYERS = {
    name: parameters
    for name, layer in vars(layers).items()
    if inspect.isclass(layer) and "param_dtype" in (parameters := inspect.signature(layer.__init__).parameters)
}


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_are_float32_and_the_computation_has_the_dtype_of_its_inputs(name):
    assert LAYERS[name]["param_dtype"].default in (jnp.float32, inspect.Parameter.empty)
    assert LAYERS[name]["dtype"].default in (None, inspect.Parameter.empty)
