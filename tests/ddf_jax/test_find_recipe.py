"""Where recipes come from, and the message about a file that holds none."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddf_jax.errors import UserError
from ddf_jax.recipes import find_recipe, shipped_recipes

ROOT = Path(__file__).parents[2]
MAKES_RECIPE = "from ddf_jax.training.recipe import Recipe\nrecipe = Recipe('mine')\n"


def test_a_path_is_a_file_and_a_name_is_shipped(tmp_path, monkeypatch):
    (tmp_path / "digits.py").write_text(MAKES_RECIPE)
    monkeypatch.chdir(tmp_path)
    assert find_recipe("digits.py").name == "mine"
    assert find_recipe("digits").name == "digits"
    assert find_recipe("digits") is importlib.import_module("ddf_jax.recipes.digits").recipe
    assert "digits" in shipped_recipes()


def test_a_models_name_is_refused_with_its_recipes():
    recipes = "coco_mask_rcnn_resnet50, rooms_mask_rcnn_plain"
    message = rf"A recipe is needed, got the model 'mask_rcnn_resnet50', which is that of {recipes}.$"
    with pytest.raises(UserError, match=message):
        find_recipe("mask_rcnn_resnet50")
    with pytest.raises(UserError, match=r"no recipe 'htc_resnet50'. Did you mean .*coco_htc_dcdc_resnet50"):
        find_recipe("htc_resnet50")


def test_a_recipe_file_may_import_its_neighbours_and_leaves_no_trace(tmp_path):
    (tmp_path / "my_base.py").write_text(MAKES_RECIPE)
    (tmp_path / "variant.py").write_text(
        "import dataclasses\nfrom my_base import recipe as base\nrecipe = dataclasses.replace(base, name='variant')\n"
    )
    path = list(sys.path)
    assert find_recipe(str(tmp_path / "variant.py")).name == "variant"
    assert sys.path == path
    del sys.modules["my_base"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise RuntimeError('no\\nluck')", r"cannot be read, line 2: RuntimeError: no"),
        ("def ratio():\n    return 1 / 0\n\nrate = ratio()", r"line 2: ZeroDivisionError"),
        ("recipe = (", r"cannot be read: SyntaxError: .*line 1"),
        ("import not_a_module", r"line 1: ModuleNotFoundError: No module named 'not_a_module'"),
        (
            MAKES_RECIPE.replace("'mine'", "'mine', epoch=3"),
            r"line 2: TypeError: .*unexpected keyword argument 'epoch'",
        ),
        ("", r"must define `recipe`, a `ddf_jax.training.recipe.Recipe`, got nothing of that name"),
        ("recipe = {'name': 'mine'}", r"must define `recipe`.*got an object of type dict"),
    ],
)
def test_a_file_without_a_recipe_is_named_with_the_cause(tmp_path, text, message):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        find_recipe(str(file))
    assert str(file) in str(caught.value)


def test_shipped_recipes_are_found_from_any_folder_whatever_a_user_calls_recipes(tmp_path):
    """Also a shipped variant, which imports its base."""
    for folder in (tmp_path / "recipes", tmp_path / "experiments"):
        folder.mkdir()
        (folder / "__init__.py").write_text("raise RuntimeError('the wrong recipes')")
    (tmp_path / "digits.py").write_text("raise RuntimeError('the wrong digits')")
    done = subprocess.run(
        [sys.executable, "-m", "ddf_jax", "train", "digits_plain", "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Shipped recipes: coco_" in done.stdout
    assert "digits_plain)" in done.stdout  # the default of --name
