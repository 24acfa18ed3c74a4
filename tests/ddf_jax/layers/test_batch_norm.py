"""Batch normalisation against its formula in float64, and its running statistics."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import BatchNorm, batch_norm, norm_relu
from ddf_jax.layers.batch_norm import statistics_of, statistics_of_groups

MOMENTUM, EPSILON = 0.3, 1e-3


apply = nnx.jit(lambda norm, x: norm(x))


def layer(channels=3, **options):
    norm = BatchNorm(channels, momentum=MOMENTUM, epsilon=EPSILON, rngs=nnx.Rngs(0), **options)
    random = np.random.RandomState(1)
    for variable in (norm.scale, norm.bias, norm.mean):
        variable[...] = random.standard_normal(channels).astype(variable.dtype)
    norm.var[...] = random.uniform(0.5, 2, channels).astype(norm.var.dtype)
    return norm


def formula(x, scale, bias):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(var + EPSILON) * scale + bias


def float64(variable):
    return np.asarray(variable[...], np.float64)


def images(mean=0.0, shape=(2, 5, 7, 3)):
    return np.random.RandomState(0).standard_normal(shape) + mean


@pytest.mark.parametrize("mean", [0.0, 1000.0, -1e4])
def test_training_normalises_by_the_batch_however_far_its_mean_lies(mean):
    norm = layer()
    norm.mean[...] = np.full(3, mean + 0.5, np.float32)  # as after some steps on such images
    x = images(mean).astype(np.float32)
    y = apply(norm, x)
    expected = formula(x.astype(np.float64), float64(norm.scale), float64(norm.bias))
    np.testing.assert_allclose(y, expected, rtol=0, atol=3e-6)


def test_running_statistics_collect_the_mean_and_the_unbiased_variance():
    norm, x = layer(), images()
    mean, var = float64(norm.mean), float64(norm.var)
    apply(norm, x.astype(np.float32))
    np.testing.assert_allclose(norm.mean[...], (1 - MOMENTUM) * mean + MOMENTUM * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], (1 - MOMENTUM) * var + MOMENTUM * x.var((0, 1, 2), ddof=1), rtol=1e-5)


def test_the_statistics_of_some_samples_are_those_of_a_batch_of_them_alone():
    x = images(shape=(5, 4, 3, 3))
    cotangent = np.random.RandomState(1).standard_normal(x.shape)
    live = np.array([True, False, True, True, False])

    def differentiated(x, cotangent, samples=None):
        def objective(norm, x):
            with contextlib.nullcontext() if samples is None else statistics_of(jnp.asarray(samples)):
                y = norm_relu(norm, x)
            return jnp.vdot(y, cotangent), y

        norm = layer(param_dtype=jnp.float64)
        differentiate = nnx.jit(nnx.value_and_grad(objective, argnums=(0, 1), has_aux=True))
        ((_, y), gradients) = differentiate(norm, jnp.asarray(x))
        return y, gradients, norm

    with jax.enable_x64(True):
        y, (of_norm, dx), norm = differentiated(x, np.where(live[:, None, None, None], cotangent, 0), live)
        expected, (of_alone, alone), norm_alone = differentiated(x[live], cotangent[live])
        np.testing.assert_allclose(y[live], expected, rtol=0, atol=1e-13)
        np.testing.assert_allclose(dx[live], alone, rtol=0, atol=1e-13)
        assert np.isfinite(y).all()
        assert (dx[~live] == 0).all()
        for ours, theirs in ((of_norm, of_alone), (nnx.state(norm), nnx.state(norm_alone))):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), ours, theirs)


def test_of_no_samples_the_running_statistics_stay_and_the_values_are_finite():
    norm, x = layer(), images().astype(np.float32)
    mean, var = float64(norm.mean), float64(norm.var)
    with statistics_of(jnp.zeros(2, bool)):
        assert np.isfinite(nnx.jit(lambda norm, x: norm(x))(norm, x)).all()
        with pytest.raises(ValueError, match="the 1 samples of x"):
            norm(x[:1])
    np.testing.assert_array_equal(norm.mean[...], mean.astype(np.float32))
    np.testing.assert_array_equal(norm.var[...], var.astype(np.float32))


def test_evaluation_normalises_by_the_running_statistics_and_keeps_them():
    norm, x = layer(), images()
    mean, var = float64(norm.mean), float64(norm.var)
    norm.eval()
    y = apply(norm, x.astype(np.float32))
    expected = (x - mean) / np.sqrt(var + EPSILON) * float64(norm.scale) + float64(norm.bias)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(float64(norm.mean), mean)


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_gradients_are_the_formulas(shift):
    norm, x = layer(), images(shift)
    norm.mean[...] = np.full(3, shift, np.float32)
    structure, state = nnx.split(norm)
    weight = np.random.RandomState(5).standard_normal(x.shape)

    def loss(x, scale, bias):
        norm = nnx.merge(structure, state, copy=True)
        norm.scale[...], norm.bias[...] = scale, bias
        return (norm(x) * jnp.asarray(weight, x.dtype)).sum()

    ours = jax.jit(jax.grad(loss, (0, 1, 2)))(x.astype(np.float32), norm.scale[...], norm.bias[...])
    with jax.enable_x64(True):

        def exact(x, scale, bias):
            mean, var = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
            y = (x - mean) / jnp.sqrt(var + EPSILON) * scale[None, None, None] + bias[None, None, None]
            return (y * weight).sum()

        operands = x.astype(np.float32).astype(np.float64), float64(norm.scale), float64(norm.bias)
        expected = jax.jit(jax.grad(exact, (0, 1, 2)))(*operands)
    for value, correct in zip(ours, expected, strict=True):
        np.testing.assert_allclose(value, correct, rtol=0, atol=1e-5 * np.abs(correct).max())


@pytest.mark.parametrize("relu", [False, True])
def test_in_float64_values_statistics_and_derivatives_of_every_mode_and_order_are_the_formulas(relu):
    with jax.enable_x64(True):
        norm, random = layer(param_dtype=jnp.float64), np.random.RandomState(7)
        structure, state = nnx.split(norm)
        operands = jnp.asarray(images(3.0)), norm.scale[...], norm.bias[...]
        tangents = tuple(jnp.asarray(random.standard_normal(value.shape)) for value in operands)
        weight = jnp.asarray(random.standard_normal(operands[0].shape))

        def ours(x, scale, bias):
            norm = nnx.merge(structure, state, copy=True)
            norm.scale[...], norm.bias[...] = scale, bias
            return norm_relu(norm, x) if relu else norm(x), norm.mean[...], norm.var[...]

        def exact(x, scale, bias):
            mean, var, count = x.mean((0, 1, 2)), x.var((0, 1, 2)), x.size // 3
            y = (x - mean[None, None, None]) / jnp.sqrt(var + EPSILON)[None, None, None] * scale[None, None, None]
            batch = (mean, var * (count / (count - 1)))
            running = (
                (1 - MOMENTUM) * old[...] + MOMENTUM * jax.lax.stop_gradient(new)
                for old, new in zip((norm.mean, norm.var), batch, strict=True)
            )
            y = y + bias[None, None, None]
            return jax.nn.relu(y) if relu else y, *running

        def everything(function):
            def loss(*operands):
                return (jnp.sin(function(*operands)[0]) * weight).sum()

            gradient = jax.grad(loss, (0, 1, 2))
            forward_over_reverse = jax.jvp(gradient, operands, tangents)
            squares = jax.grad(lambda *operands: sum((g**2).sum() for g in gradient(*operands)), (0, 1, 2))(*operands)
            return jax.jvp(function, operands, tangents), forward_over_reverse, squares

        found, expected = (jax.jit(lambda f=f: everything(f))() for f in (ours, exact))
        for value, correct in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(value, correct, rtol=0, atol=1e-9 * max(np.abs(correct).max(), 1))


def test_gradients_of_a_batch_of_batches_are_those_of_each():
    norm, x = layer(), images(shape=(4, 2, 5, 3)).astype(np.float32)
    structure, state = nnx.split(norm)

    def gradient(x):
        return jax.grad(lambda x: jnp.sin(norm_relu(nnx.merge(structure, state, copy=True), x)).sum())(x)

    each = [jax.jit(gradient)(x[number]) for number in range(4)]
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(x), each, rtol=1e-4, atol=1e-6)


def test_layers_of_the_same_shapes_are_traced_once(monkeypatch):
    def counted(*arrays):
        traced.append(arrays)
        return channel_sums(*arrays)

    traced, channel_sums = [], batch_norm.channel_sums
    monkeypatch.setattr(batch_norm, "channel_sums", counted)
    x = jnp.zeros((2, 3, 11, 3))
    nnx.eval_shape(lambda: functools.reduce(lambda x, _: BatchNorm(3, rngs=nnx.Rngs(0))(x), range(3), x))
    assert len(traced) == 1


def test_another_normalisation_is_rectified_and_another_call_is_called():
    class Doubled(BatchNorm):
        def __call__(self, x):
            return 2 * super().__call__(x)

    x = jnp.asarray(images())
    np.testing.assert_array_equal(norm_relu(lambda x: 2 * x, x), jnp.maximum(2 * x, 0))
    doubled, norm = (kind(3, rngs=nnx.Rngs(0)) for kind in (Doubled, BatchNorm))
    np.testing.assert_allclose(norm_relu(doubled, x), 2 * norm_relu(norm, x), rtol=0, atol=1e-6)


def test_half_precision_in_and_out_with_statistics_in_float32():
    norm, x = layer(), images().astype(jnp.bfloat16)
    y = apply(norm, x)
    assert y.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == jnp.float32
    expected = formula(np.asarray(x, np.float64), float64(norm.scale), float64(norm.bias))
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2**-8, atol=2**-8)


def test_each_group_has_statistics_of_its_own_and_the_running_ones_their_mean():
    """As devices that keep their statistics apart; also with padding, of which one group may consist."""
    x = images(1.0, (6, 5, 7, 3))
    live = np.array([True, True, True, False, False, False])

    @nnx.jit
    def grouped(norm, x, live):
        with statistics_of_groups(3), statistics_of(live):
            return norm(x)

    for counted in (np.ones(6, bool), live):
        norm, parts = layer(), []
        y = grouped(norm, jnp.float32(x), jnp.asarray(counted))
        scale, bias = float64(norm.scale), float64(norm.bias)
        for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
            part = x[rows][counted[rows]]
            if len(part):
                expected = formula(part, scale, bias)
                np.testing.assert_allclose(y[rows][counted[rows]], expected, rtol=1e-4, atol=1e-5)
                parts.append((part.mean((0, 1, 2)), part.var((0, 1, 2), ddof=1)))
        before, kept = layer(), MOMENTUM * len(parts) / 3
        for name, of_parts in zip(("mean", "var"), zip(*parts, strict=True), strict=True):
            expected = (1 - kept) * float64(getattr(before, name)) + kept * np.mean(of_parts, 0)
            np.testing.assert_allclose(getattr(norm, name)[...], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"must be a multiple of the 3 groups of its statistics, got \(4, 5, 7, 3\)"):
        grouped(layer(), jnp.zeros((4, 5, 7, 3)), jnp.ones(4, bool))
