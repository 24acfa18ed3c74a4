"""The shipped recipes, one Python file a run that defines `recipe`, and how a recipe is found by name or path."""

import contextlib
import difflib
import runpy
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from ddf_jax.training.recipe import Recipe

SHIPPED = Path(__file__).resolve().parent
ROOT = SHIPPED.parents[1]


def find_recipe(name: str) -> Recipe:
    """The recipe in a `.py` file, or the shipped one of that name.

    Raises:
      ValueError: there is none, or its file does not define one.
    """
    if name.endswith(".py"):
        return read_recipe(Path(name), imports_from=Path(name).parent)
    recipes = shipped_recipes()
    if name not in recipes:
        nearest = difflib.get_close_matches(name, recipes, n=3, cutoff=0.4) or recipes
        raise ValueError(
            f"There is no recipe {name!r}. Did you mean {', '.join(nearest)}? Or give the path of a .py file."
        )
    return recipes[name]


def shipped_recipes() -> dict[str, Recipe]:
    """The recipes that come with the package, by the name that each gives itself."""
    recipes = [read_recipe(file, imports_from=ROOT) for file in SHIPPED.glob("[!_]*.py")]
    return {recipe.name: recipe for recipe in sorted(recipes, key=lambda recipe: recipe.name)}


def read_recipe(file: Path, *, imports_from: Path) -> Recipe:
    """Runs a Python file and returns its `recipe`.

    Args:
      imports_from: the folder whose modules the file may import, as a script may those beside it.

    Raises:
      ValueError: there is no such file, it raises an error, or it does not define a recipe.
    """
    if not file.is_file():
        raise ValueError(f"There is no recipe file {file}.")
    try:
        with _importing_from(imports_from):
            value = runpy.run_path(str(file)).get("recipe")
    except Exception as error:
        raise ValueError(
            f"The recipe {file} cannot be read{_where(error, file)}: {type(error).__name__}: {error}"
        ) from None
    if not isinstance(value, Recipe):
        found = "nothing of that name" if value is None else f"an object of type {type(value).__name__}"
        raise ValueError(f"{file} must define `recipe`, a `ddf_jax.training.recipe.Recipe`, got {found}.")
    return value


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.pop(0)


def _where(error: Exception, file: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f", line {lines[-1]}" if lines else ""
