"""Derivatives of higher order of networks with dynamic filters, as their users take them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import CARAFE, DCDC, DDF, Bivolution, Involution, Linear
from tests.ddf_jax.layers import formulas

C = 4
SMALL = {"kernel_size": 3, "group_channels": 2, "reduction": 2}


INVOLUTION = functools.partial(Involution, **SMALL)
LAYERS: dict[str, Any] = {
    "DDF": functools.partial(DDF, squeeze_ratio=0.5),
    "Involution": INVOLUTION,
    "CARAFE": functools.partial(CARAFE, kernel_size=3, compressed_channels=2, encoder_kernel_size=1),
    "DCDC": functools.partial(DCDC, stride=2, **SMALL),
    "Bivolution": functools.partial(Bivolution, dynamic=INVOLUTION, static_groups=2, context_reduction=2),
}


class Network(nnx.Module):
    """Dynamic filters, then a score for each image."""

    def __init__(self, layers: list[Any], rngs: nnx.Rngs):
        self.layers = nnx.List([layer(C, rngs=rngs) for layer in layers])
        self.score = Linear(C, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.score(x.mean((1, 2)))[:, 0]


@pytest.fixture(scope="module", params=["DDF", pytest.param("all", marks=pytest.mark.slow)])
def network(request):
    """A function (parameters, images) -> scores in evaluation mode; parameters, a direction of them, and images."""
    layers = list(LAYERS.values()) if request.param == "all" else [LAYERS[request.param]]
    model = formulas.drawn(functools.partial(Network, layers))
    graph, drawn, rest = nnx.split(model, nnx.Param, ...)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        drawn, rest = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (drawn, rest))
        direction = jax.tree.map(lambda a: jnp.asarray(0.3 * rng.standard_normal(a.shape)), drawn)
        images = jnp.asarray(rng.standard_normal((2, 3, 2, C)))
        yield lambda parameters, x: nnx.merge(graph, parameters, rest)(x), drawn, direction, images


def moved(parameters: Any, direction: Any, distance: float) -> Any:
    return jax.tree.map(lambda a, b: a + distance * b, parameters, direction)


def check_gradient(function: Any, parameters: Any, direction: Any) -> None:
    """Asserts the gradient along a direction against central differences of the function's values."""
    evaluate = jax.jit(jax.value_and_grad(function))
    _, gradient = evaluate(parameters)
    above, below = (evaluate(moved(parameters, direction, distance))[0] for distance in (1e-4, -1e-4))
    slope = (above - below) / 2e-4
    products = jax.tree.map(jnp.vdot, gradient, direction)
    assert float(sum(jax.tree.leaves(products))) == pytest.approx(float(slope), rel=1e-5)


def test_a_gradient_penalty_is_trained_through(network):
    """That of Gulrajani et al., "Improved Training of Wasserstein GANs", 2017: every filter is differentiated twice."""
    score, parameters, direction, images = network

    def penalty(parameters):
        slopes = jax.grad(lambda x: jnp.sum(score(parameters, x)))(images)
        return jnp.mean((jnp.sqrt((slopes**2).sum((1, 2, 3))) - 1) ** 2)

    check_gradient(penalty, parameters, direction)


@pytest.mark.slow  # twice the derivative of a layer, as above
@pytest.mark.parametrize("order", [1, 2])
def test_a_step_is_trained_through(network, order):
    """MAML of Finn et al., 2017, of first and second order: the loss after a step of gradient descent."""
    score, parameters, direction, images = network

    def loss(parameters, x):
        return jnp.mean((score(parameters, x) - 1) ** 2)

    def adapted(parameters):
        gradients = jax.grad(loss)(parameters, images[:1])
        return moved(parameters, jax.lax.stop_gradient(gradients) if order == 1 else gradients, -0.1)

    def outer(parameters):
        return loss(adapted(parameters), images[1:])

    if order == 2:
        check_gradient(outer, parameters, direction)
        return
    first, expected = jax.jit(lambda p: (jax.grad(outer)(p), jax.grad(loss)(adapted(p), images[1:])))(parameters)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), first, expected)


@pytest.mark.slow  # the example of docs/operator.md runs both
def test_hessian_and_linearize_need_no_option(network):
    """By forward over reverse mode, reverse over reverse mode, and a linear function of the tangents."""
    score, parameters, direction, images = network
    directions = jnp.stack([images, jnp.cos(images)])

    def function(z):
        return jnp.sum(score(parameters, images + jnp.tensordot(z, directions, 1)))

    def run(z):
        _, push_forward = jax.linearize(lambda p: score(p, images), parameters)
        tangent = jax.jvp(lambda p: score(p, images), (parameters,), (direction,))[1]
        return jax.hessian(function)(z), jax.jacrev(jax.jacrev(function))(z), push_forward(direction), tangent

    hessian, twice, linear, tangent = jax.jit(run)(jnp.zeros(2))
    np.testing.assert_allclose(hessian, twice, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(linear, tangent, rtol=1e-9, atol=1e-12)
    gradient = jax.jit(jax.grad(function))
    slopes = [(gradient(1e-4 * e) - gradient(-1e-4 * e)) / 2e-4 for e in jnp.eye(2)]
    np.testing.assert_allclose(hessian, np.stack(slopes), rtol=1e-5, atol=1e-8)
