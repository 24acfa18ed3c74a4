"""The shipped recipes, one module a run that defines `recipe`, and how a recipe is found by name or path."""

import difflib
import importlib
import pkgutil
from pathlib import Path

from ddf_jax.errors import UserError
from ddf_jax.training.recipe import Recipe, read_recipe


def find_recipe(name: str) -> Recipe:
    """The recipe in a `.py` file, or the shipped one of that name.

    Raises:
        UserError: there is none, or its file does not define one.
    """
    if name.endswith(".py"):
        return read_recipe(Path(name))
    names = shipped_recipes()
    if name not in names:
        if of_model := [each for each in names if _shipped(each).model.name == name]:
            raise UserError(f"A recipe is needed, got the model {name!r}, which is that of {', '.join(of_model)}.")
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise UserError(
            f"There is no recipe {name!r}. Did you mean {', '.join(nearest)}? Or give the path of a .py file."
        )
    return _shipped(name)


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def _shipped(name: str) -> Recipe:
    return importlib.import_module(f"{__name__}.{name}").recipe
