"""The DDF layer against its formula, written out in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import DDF, BatchNorm, Conv, FilterBatchNorm, FilterNorm, FilterSigmoid, PointwiseConv
from tests.ddf_jax.layers.formulas import drawn

apply = nnx.jit(lambda layer, x: layer(x))


def filter_norm(f: np.ndarray, axis: int) -> np.ndarray:
    return (f - f.mean(axis, keepdims=True)) / (f.std(axis, ddof=1, keepdims=True) + 1e-10)


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"heads": 2, "combine": "add"}, {"kernel_size": 5, "dilation": 2}]
)
def test_ddf_is_the_formula_of_the_paper(options):
    layer = drawn(lambda rngs: DDF(8, squeeze_ratio=0.5, rngs=rngs, **options))
    x = np.random.default_rng(1).normal(size=(2, 7, 6, 8))
    kernel_size, stride = options.get("kernel_size", 3), options.get("stride", 1)
    dilation, heads = options.get("dilation", 1), options.get("heads", 1)
    taps = kernel_size**2
    p = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(layer, nnx.Param)))
    spatial = x[:, ::stride, ::stride] @ p["spatial_branch"]["conv"]["kernel"] + p["spatial_branch"]["conv"]["bias"]
    spatial = filter_norm(spatial.reshape(*spatial.shape[:3], heads, taps), -1) * (2**0.5 / kernel_size)
    branch = p["channel_branch"]
    hidden = np.maximum(x.mean((1, 2)) @ branch["squeeze"]["kernel"] + branch["squeeze"]["bias"], 0)
    channel = (hidden @ branch["excite"]["kernel"] + branch["excite"]["bias"]).reshape(2, taps, 8)
    channel = filter_norm(channel, 1) * branch["norm"]["scale"]
    halo = dilation * (kernel_size // 2)
    padded = np.pad(x, ((0, 0), (halo, halo), (halo, halo), (0, 0)))
    expected = np.zeros((2, *spatial.shape[1:3], 8))
    for i, j in np.ndindex(*spatial.shape[1:3]):
        for t in range(taps):
            row, column = i * stride + t // kernel_size * dilation, j * stride + t % kernel_size * dilation
            s, c = np.repeat(spatial[:, i, j, :, t], 8 // heads, -1), channel[:, t]
            combined = s + c if options.get("combine") == "add" else s * c
            expected[:, i, j] += combined * padded[:, row, column]
    y = apply(layer, x.astype(np.float32))
    np.testing.assert_allclose(y, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("normalization", "branches"),
    [
        pytest.param(kind, branches, marks=() if kind is FilterNorm or not branches else pytest.mark.slow)
        for kind in (FilterNorm, FilterBatchNorm, FilterSigmoid)
        for branches in ({}, {"spatial": False}, {"channel": False})
    ],
)
def test_every_parameter_of_every_variant_gets_a_gradient(normalization, branches):
    options = {"squeeze_ratio": 0.5, "heads": 2, "normalization": normalization, **branches}
    layer = drawn(lambda rngs: DDF(6, rngs=rngs, **options))
    layer.train()
    x = np.random.default_rng(2).normal(size=(2, 5, 4, 6)).astype(np.float32)
    gradients = nnx.jit(nnx.grad(lambda layer: (layer(x) ** 2 * np.cos(x)).sum()))(layer)
    for path, gradient in nnx.to_flat_state(gradients):
        assert np.abs(gradient[...]).max() > 0, path


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_half_precision_computes_in_half_and_stores_in_float32(dtype):
    layer = drawn(lambda rngs: DDF(16, dtype=dtype, rngs=rngs))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))} == {np.dtype(np.float32)}
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 16)).astype(np.float32)
    y, exact = apply(layer, x), np.asarray(apply(drawn(lambda rngs: DDF(16, rngs=rngs)), x))
    assert y.dtype == dtype
    np.testing.assert_allclose(np.asarray(y).astype(np.float32), exact, atol=0.05 * np.abs(exact).max())


def test_filter_norm_gives_mean_zero_and_the_constant_deviation():
    norm = FilterNorm((2, 9), tap_axis=-1, gain=2**0.5, rngs=nnx.Rngs(0))
    y = np.asarray(apply(norm, np.random.default_rng(0).normal(3, 7, (3, 4, 5, 2, 9)).astype(np.float32)))
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(-1, ddof=1), 2**0.5 / 3, rtol=1e-5)


def test_filter_norm_learns_scale_and_mean_where_asked():
    norm: Any = FilterNorm((9, 4), tap_axis=-2, learned=True, learned_mean=True, rngs=nnx.Rngs(0))
    norm.scale[...] = np.full((9, 4), 2, np.float32)
    norm.mean[...] = mean = np.arange(36, dtype=np.float32).reshape(9, 4)
    filters = np.random.default_rng(0).normal(size=(3, 9, 4))
    np.testing.assert_allclose(apply(norm, filters.astype(np.float32)), 2 * filter_norm(filters, 1) + mean, atol=1e-5)


def test_initial_weights_follow_the_original():
    layer: Any = nnx.jit(lambda: DDF(64, rngs=nnx.Rngs(0)))()
    spatial, channel = layer.spatial_branch, layer.channel_branch
    for linear, fan_in in ((spatial.conv, 64), (channel.squeeze, 64), (channel.excite, 12)):
        for parameter in (linear.kernel, linear.bias):
            assert 0.8 * fan_in**-0.5 < np.abs(parameter[...]).max() <= fan_in**-0.5
    assert abs(np.std(channel.norm.scale[...]) - 2**0.5 / 3) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial": False, "channel": False}, "must not both be False"),
        ({"heads": 3}, "`heads` must divide `in_channels`"),
        ({"squeeze_ratio": 0.01}, "must leave at least one channel"),
        ({"kernel_size": 1}, "one tap has no deviation"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: DDF(8, rngs=nnx.Rngs(0), **options))


def test_batch_norm_has_the_statistics_of_torch():
    norm = BatchNorm(3, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(2, 3, size=(4, 5, 6, 3))
    norm.scale[...], norm.bias[...] = scale, bias = (
        np.array([0.3, -0.2, 2], np.float32),
        np.array([0.1, 0.4, -0.5], np.float32),
    )
    y = apply(norm, x.astype(np.float32))
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * scale + bias
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), rtol=1e-5)
    norm.eval()
    expected = (x - np.asarray(norm.mean[...])) / np.sqrt(np.asarray(norm.var[...]) + 1e-5) * scale + bias
    np.testing.assert_allclose(apply(norm, x.astype(np.float32)), expected, atol=1e-5)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (7, 2)])
def test_convolution_pads_like_torch(kernel_size, stride):
    conv = drawn(lambda rngs: Conv(2, 3, kernel_size=kernel_size, stride=stride, rngs=rngs))
    x = np.random.default_rng(0).normal(size=(1, 8, 9, 2))
    half = kernel_size // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    kernel = np.asarray(conv.kernel[...])
    rows, columns = -(-8 // stride), -(-9 // stride)
    expected = np.zeros((1, rows, columns, 3))
    for i, j in np.ndindex(rows, columns):
        window = padded[:, i * stride : i * stride + kernel_size, j * stride : j * stride + kernel_size]
        expected[:, i, j] = np.einsum("bijc,ijcd->bd", window, kernel)
    np.testing.assert_allclose(apply(conv, x.astype(np.float32)), expected, atol=1e-5)


def test_pointwise_convolution_is_a_product_over_the_channels():
    conv = drawn(lambda rngs: PointwiseConv(4, 5, stride=2, use_bias=True, rngs=rngs))
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(np.float32)
    kernel, bias = np.asarray(conv.kernel[...]), np.asarray(conv.bias[...])
    np.testing.assert_allclose(apply(conv, x), x[:, ::2, ::2] @ kernel + bias, atol=1e-6)


def test_the_deviation_of_a_constant_filter_has_a_gradient_of_zero():
    """These are torch's values: what remains is the derivative of the centring, divided by 1e-10."""
    norm = FilterNorm((1, 9), tap_axis=-1, rngs=nnx.Rngs(0))
    w = np.arange(9.0, dtype=np.float32)
    constant = np.array([[[0.25] * 9], [[0.0] * 9]], np.float32)
    gradient = jax.jit(jax.grad(lambda filters: (norm(filters) * w[None, None]).sum()))(constant)
    expected = np.broadcast_to((w - w.mean()) * (2**0.5 / 3) / 1e-10, constant.shape)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
