"""Configurations, models and recipes survive pickling and deep copies."""

import copy
import pickle
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from ddf_jax.models import get_config, list_models
from ddf_jax.recipes import find_recipe, shipped_recipes
from tests.ddf_jax.models.small import DISTINCT, abstract_model, drawn, shallow

DEPTH = {
    "ddf_up_net": {"channels": 5, "kernel_size": 1},
    "pac_net": {"channels": 5, "kernel_size": 1},
    "djf": {"widths": (2, 2, 1), "joint_widths": (2, 2)},
    "dmsg": {"channels": 2, "depth_channels": 2, "image_channels": 2},
}


def copies(value: Any) -> list[Any]:
    return [pickle.loads(pickle.dumps(value)), copy.deepcopy(value)]


@pytest.mark.parametrize("name", list_models())
def test_a_configuration_equals_its_copies(name: str) -> None:
    config = get_config(name)
    assert all(copied == config for copied in copies(config))


# Networks of the layers of another one, with other options.
VARIANTS = {
    "resnet101",
    "resnext101_32x4d",
    "res2net50_14w_8s",
    "ddf_add_resnet101",
    "ddf_spatial_resnet50",
    "ddf_channel_resnet50",
    "dcdc_resnet26",
    "binet101",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else ()) for name in (*DISTINCT, *DEPTH)],
)
def test_a_model_has_the_structure_and_the_values_of_its_copies(name: str) -> None:
    config = get_config(name, **DEPTH[name]) if name in DEPTH else shallow(name)
    check_copies(nnx.merge(*drawn(config)))


def test_a_model_without_values_has_the_structure_of_its_copies() -> None:
    check_copies(abstract_model(shallow("ddf_resnet18")))


def check_copies(model: Any) -> None:
    structure, state = nnx.split(model)
    for copied in copies(model):
        copied_structure, copied_state = nnx.split(copied)
        assert copied_structure == structure
        assert jax.tree.structure(copied_state) == jax.tree.structure(state)
        for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(copied_state), strict=True):
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
            assert isinstance(ours, jax.ShapeDtypeStruct) or np.array_equal(ours, theirs)


def test_a_recipe_equals_its_copies() -> None:
    for name in shipped_recipes():
        recipe = find_recipe(name)
        assert all(copied == recipe for copied in copies(recipe))
