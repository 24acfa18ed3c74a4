"""`jax.export` of networks for images of any number and size: symbolic B, H and W."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

from ddf_jax.functional import global_average
from ddf_jax.models import get_config
from tests.ddf_jax.models.small import DISTINCT, drawn, shallow

SIZES = ((1, 61, 75), (2, 64, 64), (3, 33, 97))


def exported(structure, *states):
    """The exported program, the same jitted, and its parameters."""
    leaves, tree = jax.tree.flatten(states)

    def outputs(leaves, images):
        model = nnx.merge(structure, *jax.tree.unflatten(tree, leaves), copy=True)
        model.eval()
        features = model.features(images)[-1]
        return model.head(global_average(features)), features

    program = jax.jit(outputs)
    batch, height, width = export.symbolic_shape("b, h, w")
    images = jax.ShapeDtypeStruct((batch, height, width, 3), jnp.float32)
    symbolic = export.export(program)([jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves], images)
    assert symbolic.out_avals[0].shape == (batch, 5)
    return symbolic, program, leaves


def check_values(network, sizes):
    symbolic, program, leaves = exported(*network)
    symbolic = export.deserialize(symbolic.serialize())
    for size in sizes:
        images = np.random.default_rng(0).normal(size=(*size, 3)).astype(np.float32)
        for actual, expected in zip(symbolic.call(leaves, images), program(leaves, images), strict=True):
            assert np.ptp(expected) > 0
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["resnet26", "rednet26", "ddf_resnet26", "aa_resnet50", "binet50_dc_ca"])
def test_a_network_of_each_family_is_exported_for_symbolic_sizes(name):
    exported(*drawn(shallow(name, blocks=(1, 1), stem="small")))


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTINCT)
def test_every_exported_network_gives_the_same_logits_at_two_sizes(name):
    check_values(drawn(shallow(name)), SIZES[:2])


@pytest.mark.slow
@pytest.mark.timeout(3600)  # JAX takes minutes to give the 49 taps of RedNet's filters their sizes
@pytest.mark.parametrize("name", ["ddf_resnet18", "rednet26", "resnet18"])
def test_whole_exported_networks_give_the_same_logits_at_three_sizes(name):
    config = get_config(name, num_classes=5)
    check_values(nnx.split(nnx.jit(lambda: config.build(rngs=nnx.Rngs(0)))()), SIZES)
