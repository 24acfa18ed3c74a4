"""Derivatives of higher order, in reverse and forward mode, against finite differences of the float64 loop."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import local_correlation
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import oracle, suite
from tests.pallas_kernels.ops.test_triton import COLUMNS, QUICKLY

Function = Callable[..., Any]

CASES = (
    ArgSpec("both", (2, 3, 4, 4), FilterSpec((2, 1), stride=(2, 1), dilation=(1, 2)), groups=2),
    ArgSpec("add", (2, 3, 4, 4), FilterSpec((1, 2), combine="add"), groups=2),
    ArgSpec("no_channel_filter", (1, 3, 3, 4), FilterSpec((1, 2), padding=((0, 0), (1, 0))), groups=2, channel=False),
    ArgSpec("no_spatial_filter", (1, 3, 3, 4), FilterSpec((2, 1), combine="add"), groups=None),
    ArgSpec("upsample", (1, 2, 3, 4), FilterSpec((2, 1), scale=2), groups=2),
    ArgSpec("softmax", (1, 3, 3, 4), FilterSpec((1, 2), normalize="softmax"), groups=2),
    ArgSpec("filter_norm", (1, 3, 3, 4), FilterSpec((3, 1), normalize="filter_norm", gain=1.5, combine="add")),
    ArgSpec("softmax_upsample", (1, 2, 2, 2), FilterSpec((1, 2), scale=2, normalize="softmax"), channel=False),
)
FAST = ("both", "filter_norm")
SECOND, THIRD = ("reverse", "reverse"), ("reverse", "reverse", "reverse")
FORWARD = ("forward", "forward", "forward")


def along(mode: str, function: Function, direction: Sequence[jax.Array]) -> Function:
    """The derivative of a scalar function along a direction."""

    def derivative(*point: jax.Array) -> jax.Array:
        if mode == "forward":
            return jax.jvp(function, point, tuple(direction))[1]
        gradients = jax.grad(function, tuple(range(len(point))))(*point)
        return sum((jnp.vdot(*pair) for pair in zip(gradients, direction, strict=True)), start=jnp.zeros(()))

    return derivative


def finite_difference(function: Callable[[float], float], order: int) -> float:
    """The derivative at 0 of the polynomial through nine points."""
    points = 0.02 * np.arange(-4, 5)
    polynomial = np.polynomial.Polynomial.fit(points, [function(point) for point in points], 8)
    return float(polynomial.deriv(order)(0))


def check(operator: suite.Operator, arg: ArgSpec, modes: Sequence[str], options: dict[str, Any] | None = None) -> None:
    """Asserts the derivative of a weighted sum of y, of the order of `modes`, along one direction of all inputs."""
    inputs, weights = arg.arrays(dtype="float64"), arg.cotangent(dtype="float64")
    steps = arg.arrays(seed=7, dtype="float64")
    given = [i for i, array in enumerate(inputs) if array is not None]

    def everything(some: Sequence[Any]) -> list[Any]:
        values: list[Any] = [None] * len(inputs)
        for i, value in zip(given, some, strict=True):
            values[i] = value
        return values

    def loop(distance: float) -> float:
        x, spatial, channel = (None if a is None else a + distance * b for a, b in zip(inputs, steps, strict=True))
        return float((weights * oracle.evaluate(arg, x, spatial, channel, weights).y).sum())

    dtype = "float32" if options is not None else "float64"  # interpreted kernels have no float64
    with jax.enable_x64(dtype == "float64"):
        point, direction = ([jnp.asarray(arrays[i], dtype) for i in given] for arrays in (inputs, steps))

        def value(*some: jax.Array) -> jax.Array:
            return jnp.vdot(weights.astype(dtype), operator(arg)(*everything(some)))

        function: Function = value
        for mode in modes:
            function = along(mode, function, direction)
        found = float(jax.jit(function).lower(*point).compile(options)(*point))
    expected, tolerance = finite_difference(loop, len(modes)), 1e-6 if dtype == "float64" else 1e-4
    assert found == pytest.approx(expected, rel=tolerance, abs=1e-7)


@pytest.mark.parametrize("modes", [THIRD, FORWARD], ids=["reverse", "forward"])
@pytest.mark.parametrize("arg", suite.slow_unless(CASES, FAST))
def test_third_derivatives_are_those_of_the_loop(arg, modes):
    check(suite.by_name("xla"), arg, modes)


@pytest.mark.slow
@pytest.mark.parametrize("modes", [SECOND, ("reverse", "forward"), ("forward", "reverse", "reverse")], ids="-".join)
@pytest.mark.parametrize("arg", CASES, ids=lambda arg: arg.name)
def test_derivatives_of_mixed_modes_are_those_of_the_loop(arg, modes):
    check(suite.by_name("xla"), arg, modes)


@pytest.mark.slow
@pytest.mark.parametrize("modes", [THIRD, FORWARD], ids=["reverse", "forward"])
@pytest.mark.parametrize("arg", CASES, ids=lambda arg: arg.name)
def test_third_derivatives_of_the_reference_are_those_of_the_loop(arg, modes):
    check(suite.by_name("reference"), arg, modes)


@pytest.mark.parametrize(
    "arg", suite.slow_unless([ArgSpec("one_tap", (1, 2, 2, 2), FilterSpec(1)), *CASES], ("one_tap",))
)
def test_second_derivatives_run_on_the_kernels(arg):
    check(COLUMNS, arg, SECOND, QUICKLY)


@pytest.mark.parametrize("modes", [SECOND, ("forward", "forward")], ids=["reverse", "forward"])
def test_second_derivatives_of_the_local_correlation_are_those_of_its_formula(modes):
    """It is linear in both, so that its second derivative along a direction is twice its value there."""
    rng = np.random.default_rng(0)
    query, key, weights = (rng.standard_normal(shape) for shape in ((1, 2, 4, 4), (1, 3, 4, 4), (1, 2, 4, 2, 3)))
    with jax.enable_x64(True):
        direction = [jnp.asarray(rng.standard_normal(a.shape)) for a in (query, key)]
        correlation = functools.partial(local_correlation, kernel_size=(3, 1), stride=(2, 1), groups=2, scale=0.5)

        def value(*both: jax.Array) -> jax.Array:
            return jnp.vdot(weights, correlation(*both))

        function: Function = value
        for mode in modes:
            function = along(mode, function, direction)
        assert float(jax.jit(function)(query, key)) == pytest.approx(float(2 * value(*direction)), rel=1e-12)
