"""Every shipped recipe: described, and made of things that exist."""

import importlib
import inspect
import re

import pytest

from ddf_jax.models import get_config
from ddf_jax.recipes import find_recipe, shipped_recipes
from ddf_jax.training.recipe import recipe_from_json, recipe_to_json

NAMES = shipped_recipes()


def test_there_are_recipes():
    assert {"digits", "digits_plain", "imagenet_ddf_resnet50", "joint_depth_4x"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_its_files_name_and_its_header_states_command_hardware_time_and_expected_score(name):
    module = importlib.import_module(f"ddf_jax.recipes.{name}")
    assert module.recipe.name == name
    facts = dict(re.findall(r"^(\w+): +(.+)$", inspect.getdoc(module) or "", re.MULTILINE))
    assert facts["Command"] == f"ddf train {name}"
    assert {"Hardware", "Time", "Expected"} <= facts.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_survives_json_and_its_model_is_one_for_its_task(name):
    recipe = find_recipe(name)
    assert recipe_from_json(recipe_to_json(recipe)) == recipe
    assert get_config(recipe.model.name, **recipe.model.options).task == recipe.task.model_task
