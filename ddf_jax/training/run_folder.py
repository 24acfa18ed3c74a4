"""A run's folder, `runs/<name>/`: what is in it, and whether it belongs to a recipe."""

import json
from pathlib import Path
from typing import Any

from ddf_jax.files import make_writable, write_atomically, write_json
from ddf_jax.training.errors import RunError
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.recipe_json import changed_fields, recipe_from_json, recipe_to_json


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.curves = path / "curves.png"
        self.pictures = path / "pictures"
        self._recipe = path / "recipe.json"
        self._summary = path / "summary.json"

    def finished(self, recipe: Recipe) -> dict[str, Any] | None:
        """The summary of a run that has ended, or None.

        Raises:
            RunError: it was the run of another recipe.
        """
        if not self._summary.exists():
            return None
        check_same_recipe(self.path, self.recipe(), recipe)
        return json.loads(self._summary.read_text())

    def recipe(self) -> Recipe:
        """The recipe that the run was started with.

        Raises:
            RunError: there is no run here, or its recipe cannot be read.
        """
        if not self._recipe.is_file():
            raise RunError(f"There is no run in {self.path}: it has no {self._recipe.name}. `ddf train` makes one.")
        try:
            return recipe_from_json(self._recipe.read_text())
        except RunError as error:
            raise RunError(f"{self._recipe}: {error}") from None

    def create(self) -> None:
        """Makes the folder, or finds that it can be written."""
        make_writable(self.path)

    def write_recipe(self, recipe: Recipe) -> None:
        """Keeps the recipe beside its results."""
        write_atomically(self._recipe, recipe_to_json(recipe))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Marks the run as finished."""
        write_json(self._summary, summary)


def check_same_recipe(path: Path, old: Recipe, new: Recipe) -> None:
    """Raises `RunError` naming the fields that make `new` another run than the one in `path`."""
    changes = changed_fields(old, new)
    if changes:
        raise RunError(
            f"{path} holds a run of another recipe ({'; '.join(changes)}). Set the fields back to go on with it, or "
            f"choose another --workdir."
        )
