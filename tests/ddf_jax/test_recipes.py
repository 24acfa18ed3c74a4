"""Every shipped recipe: named once, described, and made of things that exist."""

import ast
import re

import pytest

from ddf_jax.models import get_config
from ddf_jax.recipes import ROOT, SHIPPED, read_recipe, shipped_recipes
from ddf_jax.training.recipe_json import recipe_from_json, recipe_to_json

FILES = sorted(SHIPPED.glob("[!_]*.py"))


def test_there_are_recipes_and_each_has_a_name_of_its_own():
    assert {"digits", "digits_plain"} <= shipped_recipes().keys()
    assert len(shipped_recipes()) == len(FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_header_states_command_hardware_time_and_expected_score(file):
    recipe = read_recipe(file, imports_from=ROOT)
    header = ast.get_docstring(ast.parse(file.read_text())) or ""
    facts = dict(re.findall(r"^(\w+): +(.+)$", header, re.MULTILINE))
    assert facts["Command"] == f"ddf train {recipe.name}"
    assert {"Hardware", "Time", "Expected"} <= facts.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_recipe_survives_json_and_its_model_exists(file):
    recipe = read_recipe(file, imports_from=ROOT)
    assert recipe_from_json(recipe_to_json(recipe)) == recipe
    get_config(recipe.model.name, **recipe.model.options)
