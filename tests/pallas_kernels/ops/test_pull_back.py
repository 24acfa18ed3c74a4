"""The kernel that pulls the cotangent of normalised filters back, against its derivative in plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.ops import normalization
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton.pull_back import MAX_TAPS, pull_back


@pytest.mark.parametrize("normalize", ["softmax", "filter_norm"])
@pytest.mark.parametrize(
    ("kernel_size", "parts", "dtype"),
    [(3, 1, jnp.float32), ((1, 4), 3, jnp.float16), (5, 2, jnp.bfloat16), (17, 2, jnp.float32)],
)
def test_the_sum_of_parts_is_pulled_back(normalize, kernel_size, parts, dtype):
    spec, rng = FilterSpec(kernel_size, normalize=normalize, gain=1.5), np.random.default_rng(0)
    assert (kernel_size == 17) == (spec.taps > MAX_TAPS)
    filters = jnp.asarray(rng.standard_normal((2, 3, 11, 1, 2, spec.taps)), dtype)
    if dtype == jnp.float32:
        filters = filters.at[0, 1, 2].set(0.5)  # no deviation: its cotangent is too large for a float16
    cotangents = jnp.asarray(rng.standard_normal((66, parts, 2 * spec.taps)), jnp.float32)
    result = jax.ShapeDtypeStruct(filters.shape, dtype)
    found = pull_back(filters, cotangents, result, spec, interpret=True)
    expected = normalization.pull_back(filters.astype(jnp.float32), cotangents.sum(1).reshape(filters.shape), spec)
    assert found.dtype == dtype
    scale = np.abs(expected).max(-1, keepdims=True)
    error = float(jnp.finfo(dtype).eps) + 2e-5
    assert (np.abs(np.float32(found) - np.float32(expected.astype(dtype))) <= error * scale + 1e-6).all()
