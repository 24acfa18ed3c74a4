"""Functions of images on eight devices: the results of one device, without communication."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.detection.per_image import per_image
from tests.ddf_jax.detection.devices import MODES, on_eight, on_one

RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 6, 3)).astype(np.float32)
COUNT = np.arange(8, dtype=np.int32)
SHARED = {"table": RNG.standard_normal(5).astype(np.float32)}


def loops(tree, count, shared):
    """A loop, a sort and indices that depend on values, of which XLA alone gathers the images."""

    def of_image(x, y, count):
        total = jax.lax.fori_loop(0, count, lambda n, total: total + x[n % 6] * shared["table"][count % 5], y)
        return {"order": jnp.argsort(x[:, 0]), "picked": x[jnp.argsort(total)], "sum": total.sum()}

    return jax.vmap(of_image)(tree["x"], tree["y"], count)


def called(tree, count, shared):
    return per_image(loops, tree, count, shared=shared)


@pytest.mark.parametrize("mode", MODES)
def test_each_device_computes_its_images(mode):
    arguments = {"x": X, "y": X[:, 0]}, COUNT
    expected = on_one(loops, *arguments, shared=SHARED)
    alone = on_one(called, *arguments, shared=SHARED)
    found, collectives = on_eight(mode, called, *arguments, shared=SHARED)
    for name, value in expected.items():
        np.testing.assert_array_equal(alone[name], value)
        np.testing.assert_array_equal(found[name], value)
    assert collectives == {}


def test_images_that_every_device_has_stay_there():
    def function(_, shared):
        return per_image(lambda x, _: jnp.sort(x, axis=1), shared)

    found, collectives = on_eight("auto", function, COUNT, shared=X)
    np.testing.assert_array_equal(found, np.sort(X, axis=1))
    assert collectives == {}


def test_no_gradient_flows_and_none_is_a_tree_too():
    def function(x):
        return per_image(lambda x, keys, _: (x * 2, keys), x, None)[0].sum()

    assert not jax.jit(jax.grad(function))(X).any()
