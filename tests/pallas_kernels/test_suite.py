"""The suite finds wrong values and cotangents."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.ops import xla
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import oracle, suite


class Wrong:
    """The portable implementation with a part replaced."""

    def __init__(self, forward: Callable[..., Any] = xla.forward, backward: Callable[..., Any] = xla.backward):
        self.forward = forward
        self.backward = backward


ARG = ArgSpec("small", (2, 4, 5, 4), groups=2)


def test_the_loop_has_the_cotangents_of_finite_differences():
    """Of the loop's own value, so that neither rests on JAX: the operator is linear in each input."""
    multiplied, added = FilterSpec(3, stride=2), FilterSpec(3, stride=2, combine="add")
    for spec, channel, groups in ((multiplied, True, 2), (added, True, 2), (multiplied, False, 2), (added, True, None)):
        arg = ArgSpec("small", (2, 3, 4, 4), spec, groups, channel)
        arrays, dy = arg.arrays(dtype="float64"), arg.cotangent(dtype="float64")
        cotangents = oracle.evaluate(arg, *arrays, dy)[1:]
        for position, cotangent in enumerate(cotangents):
            if cotangent is None:
                continue
            step = np.random.default_rng(2).standard_normal(cotangent.shape)
            x, spatial, channel = (a + step if i == position else a for i, a in enumerate(arrays))
            change = oracle.evaluate(arg, x, spatial, channel, dy).y - oracle.evaluate(arg, *arrays, dy).y
            np.testing.assert_allclose((change * dy).sum(), (step * cotangent).sum(), rtol=1e-12)


@pytest.mark.parametrize("name", ["x", "spatial", "channel"])
def test_a_wrong_cotangent_is_found(name):
    def backward(operands, results, spec):
        right = xla.backward(operands, results, spec)
        return right | {name: right[name] * (1 + 1e-4)}

    wrong = Wrong(backward=backward)
    with pytest.raises(AssertionError, match=f"d{name} of .* where .* is allowed"):
        suite.check(suite.by_module(wrong), ARG)


def test_a_value_rounded_twice_is_found():
    def forward(x, spatial, channel, spec, dtype):
        wide = xla.forward(x.astype(jnp.float32), spatial, channel, spec)
        return wide.astype(jnp.float16).astype(jnp.bfloat16)

    wrong = Wrong(forward=forward)
    with pytest.raises(AssertionError, match=r"y of .* where .* is allowed"):
        suite.check(suite.by_module(wrong), ArgSpec("larger", (8, 9, 9, 8)), ("bfloat16", "bfloat16", "bfloat16"))


def test_nan_and_a_wrong_shape_are_found():
    expected = np.ones(3)
    with pytest.raises(AssertionError, match=r"at \(1,\) expected 1.0, got nan"):
        suite.assert_close(np.array([1, np.nan, 1], np.float32), expected, 1e-5, "y")
    with pytest.raises(AssertionError, match=r"expected the shape \(3,\), got \(3, 1\)"):
        suite.assert_close(np.ones((3, 1), np.float32), expected, 1e-5, "y")


def test_neighbours_pair_every_change_of_size_with_every_other():
    offsets = [tuple(np.subtract(arg.x[1:], ARG.x[1:])) for arg in suite.neighbours(ARG)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert len({(offset[i], offset[j]) for offset in offsets}) == 9
