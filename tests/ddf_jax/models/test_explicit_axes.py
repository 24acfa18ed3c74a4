"""Gradients of networks for a batch over the axes that `jax.make_mesh` makes by default, without `jax.set_mesh`."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from ddf_jax.models import get_config, list_models
from tests.ddf_jax.models.small import DISTINCT, abstract_model, shallow

CLASSIFIER = ((16, 49, 65, 3),)
DEPTH = ((16, 24, 20, 3), (16, 6, 5, 1))
CASES = dict.fromkeys(DISTINCT, CLASSIFIER) | dict.fromkeys(list_models(task="depth_upsampling"), DEPTH)


@pytest.mark.parametrize(
    "name", [name if name == "ddf_up_net" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_gradients_have_the_sharding_of_their_parameters(name: str):
    mesh = jax.make_mesh((8,), ("data",))
    whole, split = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("data")))
    config = shallow(name) if CASES[name] is CLASSIFIER else get_config(name)
    structure, parameters, rest = nnx.split(abstract_model(config), nnx.Param, ...)
    parameters, rest = jax.tree.map(lambda leaf: leaf.update(sharding=whole), (parameters, rest))
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=split) for shape in CASES[name]]

    def loss(parameters: Any, rest: Any, *inputs: Any) -> jax.Array:
        model: Any = nnx.merge(structure, parameters, rest, copy=True)
        model.train()
        return jnp.square(model(*inputs)).mean()

    gradients = jax.eval_shape(jax.grad(loss), parameters, rest, *inputs)
    assert not any(any(leaf.sharding.spec) for leaf in jax.tree.leaves(gradients))
