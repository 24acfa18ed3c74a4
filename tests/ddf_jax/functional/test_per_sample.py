"""Convolution with a kernel for each sample, against the formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ddf_jax.functional import per_sample_conv
from tests.ddf_jax.layers import formulas


@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(1, 2, 1), (3, 1, 2), (5, 2, 1)])
def test_per_sample_convolution_gives_each_sample_its_own(kernel_size, stride, dilation):
    x, kernels = formulas.image(3, 5, 4, 2), formulas.image(3, kernel_size, kernel_size, 2, 6)
    convolve = jax.jit(functools.partial(per_sample_conv, stride=stride, dilation=dilation))
    y = convolve(x.astype(np.float32), kernels.astype(np.float32))
    for sample in range(3):
        expected = formulas.conv(x[[sample]], {"kernel": kernels[sample]}, stride=stride, dilation=dilation)
        np.testing.assert_allclose(y[sample], expected[0], atol=1e-4)


def test_per_sample_convolution_of_a_sharded_batch_needs_no_collective():
    mesh = jax.make_mesh((8,), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding) for shape in ((8, 5, 5, 4), (8, 3, 3, 4, 6))]

    def gradient(x, kernels):
        _, pull_back = jax.vjp(lambda x, kernels: (per_sample_conv(x, kernels) ** 2).sum((1, 2, 3)), x, kernels)
        return pull_back(jnp.ones(8))

    text = jax.jit(gradient).lower(*shapes).compile().as_text()
    assert text is not None
    assert "dot" in text
    assert not any(name in text for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


def test_wrong_kernels_are_named():
    with pytest.raises(ValueError, match=r"must be \[B, K, K, C, D\]"):
        per_sample_conv(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 3, 3, 3, 2)))
