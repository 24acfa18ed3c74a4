"""Layers that mix experts or generate their kernels, and PAC, against their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.errors import UserError
from ddf_jax.layers import (
    DCD,
    PAC,
    CondConv,
    DepthwiseCondConv,
    DepthwiseWeightNet,
    DynamicConv,
    FullDynamicFilter,
    ODConv,
)
from ddf_jax.layers.dcd import DCDLinear
from ddf_jax.layers.dynet import CoefficientPrediction, DyNetConv
from ddf_jax.layers.progress import training_progress
from tests.ddf_jax.layers import formulas

X = formulas.image(2, 5, 7, 8)
AVERAGE = X.mean((1, 2))
MAP = jnp.ones((2, 5, 7, 8))


def per_sample(kernels: np.ndarray, stride: int, groups: int = 1, dilation: int = 1) -> np.ndarray:
    """kernels [B, K, K, C / groups, D]"""
    samples = [
        formulas.conv(X[[b]], {"kernel": kernels[b]}, stride=stride, groups=groups, dilation=dilation)
        for b in range(len(X))
    ]
    return np.concatenate(samples)


def test_condconv_mixes_its_experts_for_each_sample():
    layer = formulas.drawn(functools.partial(CondConv, 8, 12, stride=2, dilation=2, experts=3))
    p = formulas.parameters(layer)
    weights = formulas.sigmoid(formulas.linear(AVERAGE, p["route"]["linear"]))
    formulas.check(layer, per_sample(np.einsum("be,eijcd->bijcd", weights, p["kernels"]), 2, dilation=2), X)


def test_dynamic_convolution_attends_to_its_experts():
    layer = formulas.drawn(functools.partial(DynamicConv, 8, 12, experts=3, temperature=2.0, stride=2, dilation=2))
    p = formulas.parameters(layer)
    hidden = formulas.relu(formulas.linear(AVERAGE, p["route"]["squeeze"]))
    logits = formulas.linear(hidden, p["route"]["excite"]) / 2
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    formulas.check(layer, per_sample(np.einsum("be,eijcd->bijcd", weights, p["kernels"]), 2, dilation=2), X)


def odconv(p: dict, *, kernel_size: int, stride: int, temperature: float = 1.0) -> np.ndarray:
    a = p["attention"]
    hidden = formulas.relu(formulas.norm(formulas.linear(AVERAGE, a["squeeze"]), a["norm"]))
    logits = {name: formulas.linear(hidden, a[name]) / temperature for name in a if name not in ("squeeze", "norm")}
    kernels = np.ones((2, 1))
    if "kernels" in logits:
        kernels = np.exp(logits["kernels"]) / np.exp(logits["kernels"]).sum(-1, keepdims=True)
    taps = formulas.sigmoid(logits["taps"]) if "taps" in logits else np.ones((2, 1))
    taps = taps.reshape(2, kernel_size, kernel_size)
    inputs, outputs = formulas.sigmoid(logits["inputs"]), formulas.sigmoid(logits["outputs"])
    mixed = np.einsum("bn,bij,bc,bd,nijcd->bijcd", kernels, taps, inputs, outputs, p["kernel"])
    return per_sample(mixed, stride)


@pytest.mark.parametrize(
    ("kernel_size", "kernels", "stride"), [(3, 1, 2), pytest.param(1, 2, 1, marks=pytest.mark.slow)]
)
def test_odconv_weighs_inputs_outputs_taps_and_kernels(kernel_size, kernels, stride):
    options = {"kernel_size": kernel_size, "kernels": kernels, "stride": stride, "min_hidden": 4}
    layer = formulas.drawn(functools.partial(ODConv, 8, 12, **options))
    formulas.check(layer, odconv(formulas.parameters(layer), kernel_size=kernel_size, stride=stride), X)


def test_the_temperature_of_odconv_falls_while_training_begins():
    layer = formulas.drawn(functools.partial(ODConv, 8, 12, kernels=2, min_hidden=4, annealing=0.2))
    structure, state = nnx.split(layer)

    @jax.jit
    def run(state, x, progress):
        with training_progress(progress):
            return nnx.merge(structure, state)(x)

    p = formulas.parameters(layer)
    for progress, temperature in ((0.0, 30.0), (0.1, 15.5), (0.2, 1.0), (0.9, 1.0)):
        expected = odconv(p, kernel_size=3, stride=1, temperature=temperature)
        y = run(state, X.astype(np.float32), progress)
        np.testing.assert_allclose(y, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kernel_size", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_dcd_adds_a_product_with_each_samples_matrix(kernel_size):
    layer = formulas.drawn(functools.partial(DCD, 8, 12, kernel_size=kernel_size, stride=2))
    p = formulas.parameters(layer)
    scale, matrix = dcd_coefficients(AVERAGE, p["coefficients"])
    q = formulas.norm(formulas.linear(X[:, ::2, ::2], p["project"]), p["norm1"])
    q = formulas.norm(np.einsum("bed,bhwd->bhwe", matrix, q), p["norm2"]) + q
    conv = formulas.linear(X[:, ::2, ::2], p["conv"]) if kernel_size == 1 else formulas.conv(X, p["conv"], stride=2)
    formulas.check(layer, conv * scale[:, None, None] + formulas.linear(q, p["restore"]), X)


def dcd_coefficients(x: np.ndarray, p: dict) -> tuple[np.ndarray, np.ndarray]:
    u = formulas.linear(x, p["squeeze"])
    z = u * np.clip(formulas.linear(u, p["gate"]) + 3, 0, 6) / 3
    matrix, scale = formulas.linear(z, p["matrix"]), np.clip(formulas.linear(z, p["scale"]) + 3, 0, 6) / 3
    rank = int(matrix.shape[1] ** 0.5)
    return scale, matrix.reshape(2, rank, rank)


def test_dcd_of_vectors():
    layer = formulas.drawn(functools.partial(DCDLinear, 8, 12, rank=3))
    p = formulas.parameters(layer)
    x = formulas.image(2, 8)
    scale, matrix = dcd_coefficients(x, p["coefficients"])
    q = formulas.norm(formulas.linear(x, p["project"]), p["norm1"])
    q = formulas.norm(np.einsum("bed,bd->be", matrix, q), p["norm2"]) + q
    formulas.check(layer, formulas.linear(x, p["static"]) * scale + formulas.linear(q, p["restore"]), x)


def test_dynet_mixes_kernels_of_each_output_channel():
    layer = formulas.drawn(functools.partial(DyNetConv, 8, 12, stride=2, kernels=3))
    coefficients = formulas.image(2, 3, 12)
    mixed = np.einsum("bno,nijco->bijco", coefficients, formulas.parameters(layer)["kernels"])
    formulas.check(layer, per_sample(mixed, 2), X, coefficients)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rngs: ODConv(8, 8, temperature=0.0, rngs=rngs), "`temperature` must be positive, got 0.0"),
        (lambda rngs: DynamicConv(8, 8, temperature=-1.0, rngs=rngs), "`temperature` must be positive, got -1.0"),
        (lambda rngs: ODConv(8, 8, annealing=1.5, rngs=rngs), "`annealing` must be a share .* from 0 to 1, got 1.5"),
        (lambda rngs: DyNetConv(8, 8, kernel_size=2, rngs=rngs), "`kernel_size` must be odd, got 2"),
        (
            lambda rngs: DyNetConv(8, 4, rngs=rngs)(MAP, jnp.ones((2, 5, 4))),
            r"= \(2, 6, 4\), got \(2, 5, 4\)",
        ),
        (lambda rngs: CoefficientPrediction(8, (4,), rngs=rngs)(MAP[0]), "The batch axis is missing"),
        (
            lambda rngs: DCDLinear(8, 4, rngs=rngs)(MAP),
            r"`x` must be \[B, C\] with C = 8, got \(2, 5, 7, 8\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(UserError, match=message):
        nnx.eval_shape(lambda: make(nnx.Rngs(0)))


def test_the_full_dynamic_filter_is_a_matrix_for_each_pixel_and_tap():
    x = formulas.image(1, 3, 4, 2)
    layer = formulas.drawn(functools.partial(FullDynamicFilter, 2))
    filters = formulas.linear(x, formulas.parameters(layer)["generate"]).reshape(1, 3, 4, 3, 3, 2, 2)
    expected = np.zeros(x.shape)
    for (i, j), seen in formulas.windows(x, 3):
        expected[:, i, j] = np.einsum("bijc,bijcd->bd", seen, filters[:, i, j])
    formulas.check(layer, expected, x)


def test_depthwise_condconv_mixes_its_experts_for_each_sample():
    layer = formulas.drawn(functools.partial(DepthwiseCondConv, 8, stride=2, dilation=2, experts=3))
    p = formulas.parameters(layer)
    weights = formulas.sigmoid(formulas.linear(AVERAGE, p["route"]["linear"]))
    filters = np.einsum("be,etc->btc", weights, p["filters"]).reshape(2, 3, 3, 1, 8)
    formulas.check(layer, per_sample(filters, 2, groups=8, dilation=2), X)


def test_weightnet_makes_a_channels_filter_from_its_activation():
    layer = formulas.drawn(functools.partial(DepthwiseWeightNet, 8, stride=2, dilation=2))
    p = formulas.parameters(layer)
    activations = formulas.sigmoid(formulas.linear(formulas.linear(AVERAGE, p["squeeze"]), p["excite"]))
    filters = (p["filters"][None] * activations[:, None]).reshape(2, 3, 3, 1, 8)
    formulas.check(layer, per_sample(filters, 2, groups=8, dilation=2), X)


@pytest.mark.parametrize(
    ("options", "guided"), [({}, True), ({"stride": 2, "dilation": 2, "learned": False}, True), ({"stride": 2}, False)]
)
def test_pac_weighs_neighbours_by_their_likeness_in_the_guidance(options, guided):
    layer = formulas.drawn(functools.partial(PAC, 8, **options))
    p = formulas.parameters(layer)
    guidance = formulas.image(2, 5, 7, 3, seed=2) if guided else X
    stride, dilation = options.get("stride", 1), options.get("dilation", 1)
    weights = p["filters"] if "filters" in p else np.ones((9, 8))
    expected = np.zeros((2, -(-5 // stride), -(-7 // stride), 8))
    views = zip(
        formulas.windows(guidance, 3, stride=stride, dilation=dilation),
        formulas.windows(X, 3, stride=stride, dilation=dilation),
        strict=True,
    )
    for ((i, j), alike), (_, seen) in views:
        gaussian = np.exp(-((alike - alike[:, 1:2, 1:2]) ** 2).sum(-1) / 2).reshape(2, 9)
        expected[:, i, j] = np.einsum("bt,tc,btc->bc", gaussian, weights, seen.reshape(2, 9, 8))
    formulas.check(layer, expected, X, *([guidance] if guided else []))


def test_pac_of_a_constant_guidance_is_a_depthwise_convolution():
    layer = formulas.drawn(functools.partial(PAC, 8))
    filters = formulas.parameters(layer)["filters"].reshape(3, 3, 1, 8)
    interior = formulas.conv(X, {"kernel": filters}, groups=8)
    np.testing.assert_allclose(formulas.run(layer, X, np.ones((2, 5, 7, 1))), interior, atol=1e-5)


def test_a_guidance_of_another_size_is_named():
    layer = formulas.drawn(functools.partial(PAC, 8))
    with pytest.raises(ValueError, match="`guidance` must be"):
        jax.eval_shape(layer, jnp.zeros((2, 5, 7, 8)), jnp.zeros((2, 5, 6, 3)))
