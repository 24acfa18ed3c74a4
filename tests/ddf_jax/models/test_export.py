"""`jax.export` of networks for images of any number and size: symbolic B, H and W."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

from ddf_jax.layers import BatchNorm
from ddf_jax.models import get_config
from tests.ddf_jax.models.small import DISTINCT, drawn, shallow

SIZES = ((1, 61, 75), (2, 64, 64), (3, 33, 97))


def exported(structure, *states):
    """The exported program, the same jitted, and its parameters."""
    leaves, tree = jax.tree.flatten(states)

    def logits(leaves, images):
        model = nnx.merge(structure, *jax.tree.unflatten(tree, leaves), copy=True)
        model.eval()
        return model(images)

    program = jax.jit(logits)
    least = getattr(nnx.merge(structure, *states), "least_side", 1)
    constraints = [f"{side} >= {least}" for side in "hw"] if least > 1 else ()
    batch, height, width = export.symbolic_shape("b, h, w", constraints=constraints)
    images = jax.ShapeDtypeStruct((batch, height, width, 3), leaves[0].dtype)
    symbolic = export.export(program)([jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves], images)
    assert symbolic.out_avals[0].shape == (batch, 5)
    return symbolic, program, leaves


def check_values(network, sizes):
    symbolic, program, leaves = exported(*network)
    symbolic = export.deserialize(symbolic.serialize())
    for size in sizes:
        # Of different brightness: attention averages noise.
        brightness = np.arange(size[0]).reshape(-1, 1, 1, 1)
        images = (np.random.default_rng(0).normal(size=(*size, 3)) + brightness).astype(leaves[0].dtype)
        expected = np.asarray(program(leaves, images))
        assert len(images) == 1 or np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # of the images
        np.testing.assert_allclose(symbolic.call(leaves, images), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def initialised(config):
    """The network with the statistics of a batch: those it starts with let a deep RedNet overflow."""

    @nnx.jit
    def build():
        model = config.build(rngs=nnx.Rngs(0))
        for _, module in nnx.iter_modules(model):
            if isinstance(module, BatchNorm):
                module.momentum = 1.0
        model(jax.random.normal(jax.random.key(0), (4, 64, 64, 3)))
        return model

    return nnx.split(build())


@pytest.mark.parametrize(
    "name",
    [
        *("resnet26", "rednet26", "ddf_resnet26", "san10"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("aa_resnet50", "binet50_dc_ca")),
    ],
)
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
    float64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}  # a deep untrained network amplifies rounding
    with jax.enable_x64(True):
        check_values(initialised(get_config(name, num_classes=5, **float64)), SIZES)
