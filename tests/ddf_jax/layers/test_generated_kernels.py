"""Layers that mix experts or generate their kernels, and PAC, against their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.layers import PAC, CondConv, DepthwiseCondConv, DepthwiseWeightNet, DynamicConv
from tests.ddf_jax.layers import formulas

X = formulas.image(2, 5, 7, 8)
AVERAGE = X.mean((1, 2))


def per_sample(kernels: np.ndarray, stride: int, groups: int = 1, dilation: int = 1) -> np.ndarray:
    """kernels [B, K, K, C / groups, D]"""
    samples = [
        formulas.conv(X[[b]], {"kernel": kernels[b]}, stride=stride, groups=groups, dilation=dilation)
        for b in range(len(X))
    ]
    return np.concatenate(samples)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 2), (2, 1)])
def test_condconv_mixes_its_experts_for_each_sample(stride, dilation):
    layer = formulas.drawn(functools.partial(CondConv, 8, 12, stride=stride, dilation=dilation, experts=3))
    p = formulas.parameters(layer)
    weights = formulas.sigmoid(formulas.linear(AVERAGE, p["route"]["linear"]))
    formulas.check(layer, per_sample(np.einsum("be,eijcd->bijcd", weights, p["kernels"]), stride, dilation=dilation), X)


def test_dynamic_convolution_attends_to_its_experts():
    layer = formulas.drawn(functools.partial(DynamicConv, 8, 12, experts=3, temperature=2.0, stride=2, dilation=2))
    p = formulas.parameters(layer)
    hidden = formulas.relu(formulas.linear(AVERAGE, p["route"]["squeeze"]))
    logits = formulas.linear(hidden, p["route"]["excite"]) / 2
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    formulas.check(layer, per_sample(np.einsum("be,eijcd->bijcd", weights, p["kernels"]), 2, dilation=2), X)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 2), (2, 1)])
def test_depthwise_condconv_mixes_its_experts_for_each_sample(stride, dilation):
    layer = formulas.drawn(functools.partial(DepthwiseCondConv, 8, stride=stride, dilation=dilation, experts=3))
    p = formulas.parameters(layer)
    weights = formulas.sigmoid(formulas.linear(AVERAGE, p["route"]["linear"]))
    filters = np.einsum("be,etc->btc", weights, p["filters"]).reshape(2, 3, 3, 1, 8)
    formulas.check(layer, per_sample(filters, stride, groups=8, dilation=dilation), X)


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
