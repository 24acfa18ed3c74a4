"""The kernels of the normalisation, against plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.ops import normalization
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton import normalization as kernels

CASES = [(3, 2, jnp.float32), ((1, 4), 3, jnp.float16), ((1, 6), 2, jnp.bfloat16), (7, 1, jnp.float32)]
# Unrolled taps with both normalisations, looped ones with the longer formula, and each narrower dtype.
QUICK = [("softmax", *CASES[1]), ("filter_norm", *CASES[2]), ("filter_norm", *CASES[3])]


@pytest.mark.parametrize(
    ("normalize", "kernel_size", "parts", "dtype"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in ((normalize, *case) for normalize in ("softmax", "filter_norm") for case in CASES)
    ],
)
def test_statistics_and_the_cotangent_of_a_sum_of_parts(normalize, kernel_size, parts, dtype):
    spec, rng = FilterSpec(kernel_size, normalize=normalize, gain=1.5), np.random.default_rng(0)
    assert (kernel_size == 7) == (spec.taps > kernels.UNROLLED_TAPS)
    filters = jnp.asarray(rng.standard_normal((2, 3, 11, 1, 2, spec.taps)), dtype)
    if dtype == jnp.float32:
        filters = filters.at[0, 1, 2].set(0.5)  # no deviation: its cotangent is too large for a float16
    numbers = kernels.statistics(filters, spec, interpret=True).reshape(*filters.shape[:-1], 2)
    for which, wanted in enumerate(normalization.statistics(filters.astype(jnp.float32), spec)):
        np.testing.assert_allclose(numbers[..., which], wanted, rtol=2e-6, atol=1e-6)
    cotangents = jnp.asarray(rng.standard_normal((66, parts, 2 * spec.taps)), jnp.float32)
    result = jax.ShapeDtypeStruct(filters.shape, dtype)
    found = kernels.pull_back(filters, cotangents, result, spec, interpret=True)
    expected = normalization.pull_back(filters.astype(jnp.float32), cotangents.sum(1).reshape(filters.shape), spec)
    assert found.dtype == dtype
    scale = np.abs(expected).max(-1, keepdims=True)
    error = float(jnp.finfo(dtype).eps) + 2e-5
    assert (np.abs(np.float32(found) - np.float32(expected.astype(dtype))) <= error * scale + 1e-6).all()


def test_more_elements_than_32_bits_count_are_left_to_xla(monkeypatch):
    monkeypatch.setattr(kernels, "COUNT_LIMIT", 2 * 3 * 5 * 9 - 1)
    spec, rng = FilterSpec(3, normalize="softmax"), np.random.default_rng(0)
    filters, parts = (jnp.asarray(rng.standard_normal(size), jnp.float32) for size in ((2, 3, 5, 1, 1, 9), (30, 2, 9)))

    def both(filters, parts):
        result = jax.ShapeDtypeStruct(filters.shape, filters.dtype)
        numbers = kernels.statistics(filters, spec, interpret=True)
        return numbers, kernels.pull_back(filters, parts, result, spec, interpret=True)

    assert "pallas_call" not in str(jax.make_jaxpr(both)(filters, parts))
    numbers, found = jax.jit(both)(filters, parts)
    expected = jnp.stack(normalization.statistics(filters, spec), axis=-1)
    np.testing.assert_allclose(numbers, expected.reshape(30, 2), rtol=1e-6)
    expected = normalization.pull_back(filters, parts.sum(1).reshape(filters.shape), spec)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
