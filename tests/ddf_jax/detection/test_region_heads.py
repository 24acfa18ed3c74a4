"""The heads of regions of several images at once."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.detection.region_heads import of_images
from ddf_jax.models.detectors import HEADS


@pytest.mark.parametrize("kind", ["involution", "bivolution"])
def test_padded_regions_change_nothing_of_the_others_in_training(kind):
    random = np.random.RandomState(0)
    x = random.standard_normal((2, 3, 5, 5, 32)).astype(np.float32)
    live = np.array([[True, True, False], [True, False, False]])
    make = HEADS[kind]
    assert make is not None
    options = {"stride": 1, "dtype": jnp.float32, "param_dtype": jnp.float32}
    head, alone = (make(32, 32, **options, rngs=nnx.Rngs(0)) for _ in range(2))
    apply = nnx.jit(of_images)
    y = apply(head, jnp.asarray(live), jnp.asarray(x))
    np.testing.assert_allclose(y[live], nnx.jit(lambda head, x: head(x))(alone, x[live]), rtol=0, atol=1e-5)
    changed = np.where(live[..., None, None, None], x, 100 * x)
    again = apply(make(32, 32, **options, rngs=nnx.Rngs(0)), jnp.asarray(live), jnp.asarray(changed))
    np.testing.assert_array_equal(y[live], again[live])
