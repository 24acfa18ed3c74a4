"""The peers in JAX."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import peers
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec

SMALL = ArgSpec("small", (1, 4, 5, 4))


def test_unfold_computes_the_operator():
    inputs = SMALL.arrays()
    np.testing.assert_allclose(peers.unfold(SMALL.spec, *inputs), SMALL.call(*inputs), atol=1e-5)


def test_depthwise_is_a_mean_of_the_window():
    y = peers.depthwise(FilterSpec(3, stride=2), jnp.ones((1, 5, 5, 2)))
    assert y.shape == (1, 3, 3, 2)
    assert float(y[0, 1, 1, 0]) == pytest.approx(1)
    assert float(y[0, 0, 0, 0]) == pytest.approx(4 / 9)
