"""The operator under the transformations of JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from pallas_kernels import dynamic_filter, dynamic_upsample

B, H, W, C, G, T = 2, 5, 6, 4, 2, 9
SHAPES = ((B, H, W, C), (B, H, W, G, T), (B, T, C))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def arguments(*leading):
    return tuple(normal(seed, *leading, *shape) for seed, shape in enumerate(SHAPES))


def loss(x, spatial, channel):
    return jnp.sum(dynamic_filter(x, spatial, channel) ** 2)


@jax.jit
def gradients(x, spatial, channel):
    return jax.grad(loss, argnums=(0, 1, 2))(x, spatial, channel)


value = jax.jit(dynamic_filter)


def assert_all_close(actual, expected):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), actual, expected)


def test_jit_gives_what_eager_gives():
    inputs = arguments()
    assert_all_close(value(*inputs), dynamic_filter(*inputs))


@pytest.mark.parametrize(
    "axes",
    [
        (0, None, None),
        (None, 0, None),
        (0, 1, -1),
        pytest.param((None, None, 0), marks=pytest.mark.slow),
        pytest.param((1, 0, 0), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_vmap_is_a_loop(axes):
    n = 3
    inputs = tuple(
        array if axis is None else jnp.stack([array, 2 * array, array + 1], axis)
        for array, axis in zip(arguments(), axes, strict=True)
    )

    def one(i):
        return tuple(
            array if axis is None else jnp.take(array, i, axis) for array, axis in zip(inputs, axes, strict=True)
        )

    expected = [(value(*one(i)), gradients(*one(i))) for i in range(n)]
    actual = jax.jit(jax.vmap(lambda *a: (dynamic_filter(*a), gradients(*a)), in_axes=axes))(*inputs)
    for i in range(n):
        assert_all_close(jax.tree.map(lambda array, i=i: array[i], actual), expected[i])


def test_vmap_of_vmap_is_a_loop_in_a_loop():
    x, spatial, channel = arguments(3, 2)
    nested = jax.vmap(jax.vmap(dynamic_filter, in_axes=(0, None, 0)), in_axes=(0, 0, 0))
    actual = jax.jit(nested)(x, spatial[:, 0], channel)
    for i, j in np.ndindex(3, 2):
        assert_all_close(actual[i, j], value(x[i, j], spatial[i, 0], channel[i, j]))


def test_the_gradient_of_a_shared_input_of_vmap_is_a_sum():
    x, spatial, channel = arguments()
    images = jnp.stack([x, 2 * x, x + 1])

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def of_shared(spatial, channel):
        return jnp.sum(jax.vmap(lambda x: loss(x, spatial, channel))(images))

    expected = [gradients(image, spatial, channel)[1:] for image in images]
    assert_all_close(of_shared(spatial, channel), jax.tree.map(lambda *parts: sum(parts), *expected))


def test_vmap_of_the_upsampling_is_a_loop():
    x, spatial = normal(0, 3, B, H, W, C), normal(1, B, H, W, 4, G, T)
    upsample = jax.jit(functools.partial(dynamic_upsample, channel=None, scale=2))
    actual = jax.vmap(lambda x: upsample(x, spatial))(x)
    assert actual.shape == (3, B, 2 * H, 2 * W, C)
    assert_all_close(actual[1], upsample(x[1], spatial))


def test_checkpoint_changes_no_gradient():
    inputs = arguments()
    remade = jax.jit(jax.grad(jax.checkpoint(loss), argnums=(0, 1, 2)))(*inputs)
    assert_all_close(remade, gradients(*inputs))


@pytest.mark.parametrize("function", [value, gradients], ids=["value", "gradients"])
def test_an_exported_program_runs_after_a_round_trip_through_bytes(function):
    inputs = arguments()
    program = export.deserialize(export.export(function)(*inputs).serialize())
    assert_all_close(jax.jit(program.call)(*inputs), function(*inputs))


def test_the_backward_pass_keeps_nothing_but_the_inputs():
    inputs = arguments()
    residuals = jax.tree.leaves(jax.vjp(dynamic_filter, *inputs)[1])
    assert sum(array.nbytes for array in residuals) == sum(array.nbytes for array in inputs)


def test_an_input_without_a_gradient_gets_none():
    x, spatial, _ = arguments()
    assert jax.vjp(dynamic_filter, x, spatial, None)[1](x)[2] is None
