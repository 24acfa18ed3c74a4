"""The shipped recipes, one module a run that defines `recipe`, and how a recipe is found by name or path."""

import contextlib
import difflib
import importlib
import pkgutil
import runpy
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from ddf_jax.errors import UserError
from ddf_jax.training.recipe import Recipe


def find_recipe(name: str) -> Recipe:
    """The recipe in a `.py` file, or the shipped one of that name.

    Raises:
        UserError: there is none, or its file does not define one.
    """
    if name.endswith(".py"):
        return read_recipe(Path(name))
    names = shipped_recipes()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise UserError(
            f"There is no recipe {name!r}. Did you mean {', '.join(nearest)}? Or give the path of a .py file."
        )
    return importlib.import_module(f"{__name__}.{name}").recipe


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def read_recipe(file: Path) -> Recipe:
    """Runs a Python file, which may import its neighbours as a script may, and returns its `recipe`.

    Raises:
        UserError: there is no such file, it raises an error, or it does not define a recipe.
    """
    if not file.is_file():
        raise UserError(f"There is no recipe file {file}.")
    try:
        with _importing_from(file.parent):
            value = runpy.run_path(str(file)).get("recipe")
    except Exception as error:
        raise UserError(
            f"The recipe {file} cannot be read{_where(error, file)}: {type(error).__name__}: {error}"
        ) from None
    if not isinstance(value, Recipe):
        found = "nothing of that name" if value is None else f"an object of type {type(value).__name__}"
        raise UserError(f"{file} must define `recipe`, a `ddf_jax.training.recipe.Recipe`, got {found}.")
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
