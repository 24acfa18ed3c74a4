"""Pooling against its formula."""

from flax import nnx

from ddf_jax.functional import average_pool
from tests.ddf_jax.layers import formulas


def test_average_pool_leaves_out_what_is_outside():
    x = formulas.image(1, 5, 7, 2)

    class Pool(nnx.Module):
        def __call__(self, x):
            return average_pool(x, 3)

    formulas.check(Pool(), formulas.average_pool(x, 3), x)
